"""The patch descriptor equals the published network and does not care where the world lies."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import ResNetConfig
from CrossKEYLib.descriptors.patches import normalise, random_rotations, sample_patches
from CrossKEYLib.descriptors.resnet import ResNetDescriptor, load_published
from CrossKEYLib.errors import ModelError
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.volume import Volume

State = OrderedDict[str, torch.Tensor]


def published_state(width: int, dims: int, seed: int = 0) -> State:
    """A state dict with the published names, written down from the architecture alone."""
    generator = torch.Generator().manual_seed(seed)
    state: State = OrderedDict()

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        scale = (2 / (inputs * kernel**3)) ** 0.5
        shape = (outputs, inputs, kernel, kernel, kernel)
        state[f"{name}.weight"] = scale * torch.randn(shape, generator=generator)

    def norm(name: str, channels: int) -> None:
        for key, low in [("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5)]:
            state[f"{name}.{key}"] = low + torch.rand(channels, generator=generator)
        state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(8000)

    conv("conv1", width, 1, 7)
    norm("bn1", width)
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            conv(f"{name}.conv1", outputs, inputs, 3)
            norm(f"{name}.bn1", outputs)
            conv(f"{name}.conv2", outputs, outputs, 3)
            norm(f"{name}.bn2", outputs)
            if stage and not block:
                conv(f"{name}.downsample.0", outputs, inputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    state["fc.weight"] = torch.randn(dims, inputs, generator=generator) * inputs**-0.5
    state["fc.bias"] = torch.randn(dims, generator=generator)
    return state


def reference_forward(state: State, patches: torch.Tensor) -> torch.Tensor:
    """The published forward pass in float64, spelled out with functions only."""
    weights = {key: value.double() for key, value in state.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{key}"].view(-1, 1, 1, 1)
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    def conv(x: torch.Tensor, name: str, stride: int, padding: int) -> torch.Tensor:
        return F.conv3d(x, weights[f"{name}.weight"], None, stride, padding)

    x = norm(conv(patches.double(), "conv1", 2, 3), "bn1").relu()
    x = F.max_pool3d(x, 3, 2, 1)
    for name in [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]:
        stride = 2 if f"{name}.downsample.0.weight" in weights else 1
        y = norm(conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1").relu()
        y = norm(conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
        if stride == 2:
            x = norm(conv(x, f"{name}.downsample.0", 2, 0), f"{name}.downsample.1")
        x = (x + y).relu()
    x = F.adaptive_avg_pool3d(x, 1).flatten(1) @ weights["fc.weight"].T + weights["fc.bias"]
    return x / x.norm(dim=1, keepdim=True)


def prefixed(state: State, prefix: str) -> State:
    return OrderedDict((prefix + key, value) for key, value in state.items())


def random_patches(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 1, 32, 32, 32, generator=torch.Generator().manual_seed(seed))


def soft_volume(seed: int = 2) -> Volume:
    noise = torch.rand(48, 52, 56, generator=torch.Generator().manual_seed(seed))
    return Volume(gaussian(noise, 1.5), transform.from_parts(np.eye(3), [-20.0, -30.0, 10.0]))


def small(seed: int = 0) -> ResNetDescriptor:
    config = ResNetConfig(width=4, dims=32, patch_size=24)
    return ResNetDescriptor(config, torch.Generator().manual_seed(seed))


def test_parameter_counts() -> None:
    counts = [
        sum(p.numel() for p in ResNetDescriptor(config).parameters())
        for config in (ResNetConfig(), ResNetConfig.narrow())
    ]
    assert counts == [33_422_656, 2_094_928]


def test_state_dict_has_exactly_the_published_names_and_shapes() -> None:
    ours = {k: v.shape for k, v in ResNetDescriptor().state_dict().items()}
    assert ours == {k: v.shape for k, v in prefixed(published_state(64, 512), "model.").items()}


def test_full_width_checkpoint_gives_the_reference_descriptors(tmp_path: Path) -> None:
    state = published_state(64, 512)
    torch.save({"state_dict": prefixed(state, "model.")}, tmp_path / "epoch=1999-step=8000.ckpt")
    descriptor = load_published(tmp_path / "epoch=1999-step=8000.ckpt")
    patches = random_patches(1)
    with torch.no_grad():
        result = descriptor(patches)
    torch.testing.assert_close(
        result.double(), reference_forward(state, patches), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("prefix", ["model.", "", "model.model.", "encoder.", "net.", "module."])
@pytest.mark.parametrize("lightning", [False, True])
def test_checkpoint_forms_load_alike(tmp_path: Path, prefix: str, lightning: bool) -> None:
    state = published_state(8, 24)
    content = prefixed(state, prefix)
    if lightning and prefix:
        content["matcher.scale"] = torch.ones(1)  # other parts of the saved module
    whole = {
        "epoch": 1999,
        "global_step": 8000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": content,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "", "dirpath": "x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "lr_schedulers": [{"T_max": 2000, "_last_lr": [1e-6]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"out_dim": 24, "distance_threshold": float("inf")},
    }
    torch.save(whole if lightning else content, tmp_path / "file.ckpt")
    descriptor = load_published(tmp_path / "file.ckpt")
    assert (descriptor.config.width, descriptor.config.dims) == (8, 24)
    assert not descriptor.training
    patches = random_patches(1)
    with torch.no_grad():
        result = descriptor(patches)
    torch.testing.assert_close(
        result.double(), reference_forward(state, patches), atol=1e-5, rtol=0
    )


def test_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    good = prefixed(published_state(8, 24), "model.")
    key = "model.layer2.0.downsample.0.weight"
    absent = {k: v for k, v in good.items() if k != key}
    cases = [
        ({**good, key: torch.ones(16, 8, 3, 3, 3)}, [key, "(16, 8, 3, 3, 3)", "(16, 8, 1, 1, 1)"]),
        (absent, [key, "missing", "(16, 8, 1, 1, 1)"]),
        ({**good, "model.layer1.2.conv1.weight": torch.ones(3)}, ["layer1.2.conv1", "unknown"]),
        ({**good, "model.conv1.weight": torch.ones(8, 3, 7, 7, 7)}, ["(8, 3, 7, 7, 7)"]),
        ({"a": torch.ones(1)}, ["0 networks"]),
        ({**good, **prefixed(published_state(8, 24), "ema.")}, ["2 networks"]),
        ([torch.ones(1)], ["no state dict"]),
        ({k: v for k, v in good.items() if ".fc." not in k}, ["model.fc.weight"]),
    ]
    for content, words in cases:
        torch.save(content, tmp_path / "file.pt")
        with pytest.raises(ModelError) as caught:
            load_published(tmp_path / "file.pt")
        assert all(word in str(caught.value) for word in ["file.pt", *words]), caught.value


def test_describe_returns_unit_vectors_whatever_the_chunk() -> None:
    descriptor, volume = small(), soft_volume()
    centre = torch.tensor(volume.centre_ras).float()
    points = centre + 5 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    result = descriptor.describe(volume, points, modality="mri")
    assert result.shape == (7, 32)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(descriptor.describe(volume, points, chunk=3), result)
    torch.testing.assert_close(descriptor.describe(volume, points.flip(0)).flip(0), result)
    assert descriptor.describe(volume, points[:0]).shape == (0, 32)
    assert descriptor.training  # as it was before


def test_describe_follows_a_moved_world() -> None:
    descriptor, volume = small(), soft_volume()
    centre = torch.tensor(volume.centre_ras).float()
    points = centre + 6 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    frames = random_rotations(4, 90, torch.Generator().manual_seed(1))
    turn = Rotation.from_euler("xyz", [40, -70, 110], degrees=True).as_matrix()
    motion = transform.from_parts(turn, [100.0, -50.0, 20.0])
    before = descriptor.describe(volume, points, frames)
    moved = volume.moved(motion), transform.apply(motion, points)
    after = descriptor.describe(*moved, torch.tensor(turn).float() @ frames)
    assert (before * after).sum(1).min() > 0.9999
    unturned = descriptor.describe(*moved, frames)
    assert (before * unturned).sum(1).max() < 0.999


def test_published_networks_see_the_axes_they_were_trained_on(tmp_path: Path) -> None:
    torch.save(published_state(8, 24), tmp_path / "file.pt")
    descriptor, volume = load_published(tmp_path / "file.pt"), soft_volume()
    point = torch.tensor(volume.centre_ras).float()[None]
    as_stored = sample_patches(volume, point)  # k, j, i towards S, A, R
    published = as_stored.permute(0, 1, 3, 4, 2).flip(2, 3)  # towards P, L, S
    with torch.no_grad():
        expected = descriptor(normalise(published))
    torch.testing.assert_close(descriptor.describe(volume, point), expected, atol=1e-4, rtol=0)


def test_finer_sampling_of_the_same_anatomy_gives_nearly_the_same_descriptor() -> None:
    descriptor, coarse = small(), soft_volume()
    generator = torch.Generator().manual_seed(0)
    half = transform.from_parts(0.5 * np.eye(3), coarse.ijk_to_ras[:3, 3])
    shape = [2 * n for n in coarse.shape]
    fine = F.interpolate(coarse.array[None, None], shape, mode="trilinear")[0, 0]
    speckle = 0.05 * torch.randn(shape, generator=generator)  # finer than the patch can show
    point = torch.tensor(coarse.centre_ras).float()[None]
    clean, noisy = (
        descriptor.describe(Volume(array, half), point) for array in (fine, fine + speckle)
    )
    aliased = Volume(fine + speckle, half)
    with torch.no_grad():
        raw = descriptor.eval()(normalise(sample_patches(aliased, point, size=24)))
    assert (clean * noisy).sum() > (clean * raw).sum()


def test_initial_weights_follow_their_generator() -> None:
    first, again, other = (small(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["model.fc.weight"], other["model.fc.weight"])


def test_gradients_reach_every_parameter() -> None:
    descriptor = ResNetDescriptor(ResNetConfig(width=4, dims=8))
    descriptor(random_patches(3))[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in descriptor.parameters())
