"""Patch networks register by true keypoints: few patches, told while they are described."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.training import texture
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import KeypointConfig, RegisterConfig, ResNetConfig, SiftConfig
from CrossKEYLib.descriptors.resnet import ResNetDescriptor
from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.models.patient import Model
from CrossKEYLib.registration import keypoint_matching
from CrossKEYLib.registration.keypoint_matching import counted, keypoints_of, slabs
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.registration.result import Registration

KEYPOINTS = KeypointConfig(spacing_mm=1.0)
CONFIG = RegisterConfig(moving_points=1000, keypoints=KEYPOINTS, refine="none")


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights tell patches of one contrast apart, as long as they lie alike."""
    config = ResNetConfig(width=8, dims=64, patch_size=16)
    network = ResNetDescriptor(config, torch.Generator().manual_seed(0))
    return Model(network.eval(), "patches")


@pytest.fixture(scope="module")
def mri() -> Volume:
    return texture(64)


@pytest.fixture(scope="module")
def ius(mri: Volume) -> Volume:
    """A ball of the MRI, in its place."""
    away = np.linalg.norm(np.indices(mri.shape) - 31.5, axis=0)
    return mri.replaced(mri.array * torch.from_numpy(away < 26))


def misplaced(mri: Volume, ius: Volume, model: Model, degrees: float, told: list[str]):
    """The result for the iUS turned and shifted, started from the turn alone where there is one,
    and the truth."""
    turn = Rotation.from_euler("xyz", [0, 0, degrees], degrees=True).as_matrix()
    off = transform.about(ius.centre_ras, turn, [4.0, -7.0, 5.0])
    start = transform.invert(transform.about(ius.centre_ras, turn)) if degrees else None
    everywhere = mri.replaced(torch.ones_like(mri.array))  # a texture shows no brain
    found = register(
        mri,
        ius.moved(off),
        model,
        initial=start,
        fixed_mask=everywhere,
        config=CONFIG,
        progress=told.append,
    )
    return found, transform.invert(off)


@pytest.mark.parametrize("degrees", [0, 90])
def test_a_shifted_image_is_found_by_its_keypoints(mri, ius, model, degrees) -> None:
    found, truth = misplaced(mri, ius, model, degrees, [])
    assert found.matrix is not None, found.trust.reasons
    corners = torch.as_tensor(ius.corners_ras()).float()
    off = transform.apply(found.matrix @ transform.invert(truth), corners) - corners
    assert float(off.norm(dim=1).max()) < 1.0


def test_the_report_counts_true_keypoints_and_progress_counts_patches(mri, ius, model) -> None:
    told: list[str] = []
    found, _ = misplaced(mri, ius, model, 0, told)
    assert isinstance(found, Registration)
    report = found.report()
    assert report["n_keypoints_ius"] == len(keypoints_of(rescaled(ius), KEYPOINTS, "iUS"))
    assert 100 < report["n_keypoints_mri"] < mri.array.numel() / 2**3 / 2  # no grid of 2 mm
    for name, count in (("MRI", "n_keypoints_mri"), ("iUS", "n_keypoints_ius")):
        lines = [line for line in told if line.startswith(f"{name} descriptors, ")]
        assert lines[-1] == f"{name} descriptors, {report[count]} of {report[count]}"
        assert len(lines) <= 11


def test_no_more_patches_are_described_than_asked_for(mri) -> None:
    few = replace(KEYPOINTS, sift=SiftConfig(peak_threshold=0.02, max_keypoints=40))
    assert len(keypoints_of(rescaled(mri), few, "MRI")) == 40


def test_keypoints_of_slabs_are_those_of_the_whole(mri, monkeypatch) -> None:
    """Every place belongs to one slab, and its overlap shows what the whole would."""
    turned = mri.moved(transform.about([0, 0, 0], Rotation.from_rotvec([0.3, 0, 0.2]).as_matrix()))
    once = keypoints_of(rescaled(turned), KEYPOINTS, "MRI")
    monkeypatch.setattr(keypoint_matching, "MIN_SLAB_VOXELS", 16)
    monkeypatch.setattr(
        keypoint_matching, "slabs", lambda grid: slabs(grid, grid.shape[0] ** 3 // 2)
    )
    grid = Grid.along(turned, 1.0)
    parts = slabs(grid, 64**3 // 2)
    assert len(parts) > 2
    owners = torch.stack([own(once) for _, own in parts])
    assert bool((owners.sum(0) == 1).all())
    in_slabs = keypoints_of(rescaled(turned), KEYPOINTS, "MRI")
    near = torch.cdist(once, in_slabs).amin(1) < 0.1
    assert float(near.float().mean()) > 0.9
    assert abs(len(in_slabs) - len(once)) < 0.1 * len(once)


def test_progress_is_told_at_most_ten_times_beside_the_start() -> None:
    told: list[str] = []
    report = counted("MRI descriptors", told.append)
    for done in range(1, 1001):
        report(done, 1000)
    assert len(told) == 11
    assert told[-1] == "MRI descriptors, 1000 of 1000"


def test_an_image_without_structure_is_refused_by_name() -> None:
    ramp = texture(40)
    smooth = ramp.replaced(torch.linspace(0.1, 1, 40).expand(40, 40, 40).contiguous())
    with pytest.raises(InputError, match=r"the iUS shows \d keypoints, at least 10"):
        keypoints_of(smooth, KEYPOINTS, "iUS")
