"""The patch descriptor of CrossKEY: a 3D ResNet-18 from a patch to a unit vector.

Published network: Morozov, Dorent, Haouchine, IEEE TMI 2026 (arXiv 2507.18551). Entries of the
state dict carry the published names (``model.conv1.weight`` ... ``model.fc.bias``), so weights
travel in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike

import torch
import torch.nn.functional as F
from torch import nn

from ..config import ResNetConfig
from ..errors import ModelError
from ..formats.weights import load_state, read_weights
from ..geometry.volume import Volume
from .patches import axes_rotation, normalise, sample_patches

# The release reads NIfTI samples stored towards L, P, S and swaps the first two axes.
PUBLISHED_AXES = "PLS"
LANDMARK_KEY = "layer1.0.conv1.weight"  # in every ResNet-18, once


class ResNetDescriptor(nn.Module):
    """Describes points by the patch around them.

    Args:
        config: width, length and patch of the descriptor.
        generator: draws the initial weights; PyTorch's own generator without one.
    """

    def __init__(
        self, config: ResNetConfig | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config or ResNetConfig()
        self.model = _ResNet18(self.config.width, self.config.dims)
        self._initialise(generator)
        self.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Descriptors ``[N, D]``, unit norm, of normalised patches ``[N, 1, S, S, S]``."""
        return F.normalize(self.model(patches).float(), dim=1)

    @torch.no_grad()
    def describe(
        self,
        volume: Volume,
        points: torch.Tensor,
        rotations: torch.Tensor | None = None,
        modality: str | None = None,
        chunk: int = 64,
        report: Callable[[int, int], None] | None = None,
    ) -> torch.Tensor:
        """Descriptors of points in a volume.

        Args:
            volume: intensities clipped as by ``intensity.rescaled``, on the network's device.
            points: ``[N, 3]`` RAS mm.
            rotations: ``[N, 3, 3]`` or ``[3, 3]``, orientation of each patch; columns in RAS.
            modality: "mri" or "ius"; one network serves both, so it makes no difference here.
            chunk: patches described at once.
            report: called after each chunk with the number of points described, and of all.

        Returns:
            ``[N, D]`` float32 of unit norm, in the order of the points.
        """
        config, training = self.config, self.training
        axes = axes_rotation(config.patch_axes).to(points)
        rotations = axes if rotations is None else rotations.to(points) @ axes
        volume = volume.smoothed(config.patch_spacing_mm)
        descriptors = points.new_empty((len(points), config.dims), dtype=torch.float32)
        self.eval()
        try:
            for start in range(0, len(points), chunk):
                part = slice(start, start + chunk)
                turn = rotations if rotations.ndim == 2 else rotations[part]
                patches = sample_patches(
                    volume, points[part], config.patch_size, config.patch_spacing_mm, turn
                )
                descriptors[part] = self(normalise(patches))
                if report is not None:
                    report(min(start + chunk, len(points)), len(points))
        finally:
            self.train(training)
        return descriptors

    def _initialise(self, generator: torch.Generator | None) -> None:
        """He initialisation for what a ReLU follows, as the release has it; PyTorch's for fc."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
            elif isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def load_published(path: str | PathLike[str]) -> ResNetDescriptor:
    """A descriptor from a checkpoint of the published CrossKEY code, in evaluation mode.

    Accepts a state dict, or a dictionary that holds one as ``state_dict`` (Lightning ``.ckpt``),
    under any prefix. Width and length follow from the shapes.

    Raises:
        ModelError: the file is unreadable, unsafe to load, or for another network.
    """
    content = read_weights(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds no state dict; expected a CrossKEY checkpoint")
    keys = [key for key in content if isinstance(key, str)]
    prefixes = [key.removesuffix(LANDMARK_KEY) for key in keys if key.endswith(LANDMARK_KEY)]
    if len(prefixes) != 1:
        raise ModelError(
            f"{path} holds {len(prefixes)} networks with an entry {LANDMARK_KEY}, expected one; "
            "give a checkpoint of the published CrossKEY code"
        )
    start = len(prefixes[0])
    state = {
        f"model.{key[start:]}": content[key]
        for key in keys
        if key.startswith(prefixes[0]) and isinstance(content[key], torch.Tensor)
    }
    width, dims = (_outputs(state, key, path) for key in ("model.conv1.weight", "model.fc.weight"))
    descriptor = ResNetDescriptor(ResNetConfig(width, dims, patch_axes=PUBLISHED_AXES))
    load_state(descriptor, state, path)
    return descriptor.eval()


def _outputs(state: Mapping[str, torch.Tensor], key: str, path: str | PathLike[str]) -> int:
    """Length of the first axis of an entry."""
    if key not in state or state[key].ndim == 0:
        raise ModelError(f"{path}: {key} is missing; the file is for another network")
    return len(state[key])


class _ResNet18(nn.Module):
    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.fc = nn.Linear(8 * width, dims)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(patches)), inplace=True)
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3, 4)))


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_BasicBlock(inputs, outputs, stride), _BasicBlock(outputs, outputs, 1))
