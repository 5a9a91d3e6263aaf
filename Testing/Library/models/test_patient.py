"""Model files: round trip, identity of the MRI, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phantoms.volumes import noise_volume

from CrossKEYLib.config import DenseConfig, ResNetConfig
from CrossKEYLib.descriptors.dense import DenseEncoder
from CrossKEYLib.descriptors.resnet import ResNetDescriptor
from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.formats.volumes import write_volume
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.described import Described
from CrossKEYLib.models.patient import Model, build_encoder, fingerprint
from CrossKEYLib.runtime.device import pick_device


def patient_model(mri: Volume) -> Model:
    torch.manual_seed(0)
    points = torch.rand(30, 3) * 10
    described = Described(points, torch.nn.functional.normalize(torch.randn(30, 8), dim=1))
    encoder = DenseEncoder(DenseConfig(width=4, dims=8)).eval()
    return Model(encoder, "anna", (fingerprint(mri),), described, {"steps": 3, "loss": 0.5})


def test_a_saved_model_describes_as_before(tmp_path: Path) -> None:
    mri = noise_volume(shape=(32, 32, 32))
    model = patient_model(mri)
    model.save(tmp_path / "m.pt")
    loaded = Model.load(tmp_path / "m.pt")
    points = torch.from_numpy(np.repeat(mri.centre_ras[None], 3, 0)).float()
    here = model.describe(rescaled(mri), points, "ius").descriptors
    there = loaded.describe(rescaled(mri), points, "ius").descriptors
    assert float((here * there).sum(1).min()) > 0.999  # half-precision weights
    assert (loaded.name, loaded.mri, loaded.history) == (model.name, model.mri, model.history)
    assert loaded.described is not None
    assert model.described is not None
    torch.testing.assert_close(loaded.described.points, model.described.points)


def test_resnet_model_round_trip(tmp_path: Path) -> None:
    model = Model(ResNetDescriptor(ResNetConfig(width=2, dims=4)).eval(), "patch")
    model.save(tmp_path / "m.pt")
    loaded = Model.load(tmp_path / "m.pt")
    assert isinstance(loaded.encoder, ResNetDescriptor)
    assert loaded.encoder.config == model.encoder.config
    assert loaded.described is None


def test_another_patients_model_is_refused() -> None:
    mri = noise_volume()
    model = patient_model(mri)
    model.check_belongs_to(mri)
    with pytest.raises(ModelError, match="another MRI"):
        model.check_belongs_to(noise_volume(seed=1))
    shifted = mri.ijk_to_ras.copy()
    shifted[0, 3] += 1
    with pytest.raises(ModelError, match="another MRI"):  # same samples, other world
        model.check_belongs_to(Volume(mri.array, shifted))
    replace(model, mri=()).check_belongs_to(noise_volume(seed=1))  # a general model fits all


def test_fingerprint_does_not_depend_on_the_file_format(tmp_path: Path) -> None:
    volume = noise_volume("oblique")
    prints = set()
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha"):
        write_volume(volume, tmp_path / name)
        prints.add(fingerprint(Volume.read(tmp_path / name)))
    assert len(prints) == 1


def test_files_that_are_no_model_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt", "missing.pt"):
        with pytest.raises(ModelError) as caught:
            Model.load(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_unknown_architectures_settings_and_devices_are_refused() -> None:
    with pytest.raises(ModelError, match="architecture"):
        build_encoder({"architecture": "vit"})
    with pytest.raises(InputError, match="unknown key"):
        build_encoder({"architecture": "dense", "widht": 4})
    with pytest.raises(ModelError, match="not available"):
        pick_device("tpu")
    assert pick_device("cpu").type == "cpu"
