"""What prepare makes of one patient's MRI; the training loop itself has tests of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import small_encoder, texture

from CrossKEYLib.descriptors.resnet import ResNetDescriptor
from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.patient import Model, fingerprint
from CrossKEYLib.training.patient import prepare as module
from CrossKEYLib.training.patient.prepare import prepare


@pytest.fixture
def seen(monkeypatch) -> dict:
    """Stands for the training: every weight grows by one."""
    seen: dict = {}

    def train(encoder, patients, config, **options):
        seen.update(options, patients=patients, config=config)
        with torch.no_grad():
            for value in encoder.state_dict().values():
                value += 1
        encoder.eval()
        return {"steps": 3}

    monkeypatch.setattr(module, "train", train)
    return seen


def test_the_patient_shares_the_training_with_the_bundled_mri(seen):
    mri = texture(40)
    start = Model(small_encoder().eval(), "start")
    before = {name: value.clone() for name, value in start.encoder.state_dict().items()}
    made = prepare([mri], start=start, minutes=7, seed=4, name="anna")
    own, bundled = seen["patients"]
    assert np.allclose(own.contrasts[0].centre_ras, mri.centre_ras)
    assert bundled.contrasts[0].array.numel() > 10 * mri.array.numel()
    assert (seen["config"].minutes, seen["seed"]) == (7, 4)
    assert (made.name, made.mri, made.history["start"]) == ("anna", (fingerprint(mri),), "start")
    assert made.described is not None
    assert len(made.described) > 1000
    for name, value in made.encoder.state_dict().items():
        if value.is_floating_point():  # a quarter of what was learned is kept
            assert torch.allclose(value, before[name] + 0.25), name
        assert torch.equal(start.encoder.state_dict()[name], before[name])  # the start stays


def test_what_cannot_be_prepared_is_refused():
    with pytest.raises(InputError, match="at least one MRI"):
        prepare([])
    with pytest.raises(ModelError, match="patch network"):
        prepare([texture(40)], start=Model(ResNetDescriptor().eval(), "published"))
    flat = Volume(torch.full((30, 30, 30), 7.0), np.eye(4))
    with pytest.raises(InputError, match="constant"):
        prepare([flat], start=Model(small_encoder().eval(), "start"))
