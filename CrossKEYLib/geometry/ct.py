"""CT: told by its numbers, and shown in the window in which brain has any contrast."""

from __future__ import annotations

from .volume import Volume

AIR_HU = -500.0  # below this there is nothing but air, and no MRI has such values
AIR_SHARE = 0.02  # of the voxels, at least
WINDOW_HU = (-150.0, 250.0)


def is_hounsfield(volume: Volume) -> bool:
    """Whether the values can only be Hounsfield units: part of the image is air."""
    return float((volume.array < AIR_HU).float().mean()) > AIR_SHARE


def windowed(volume: Volume) -> Volume:
    """A CT clipped to `WINDOW_HU`; any other volume as it is.

    Bone and air take up nearly all of a CT's range; scaled by that range, fluid and tissue would
    hardly differ.
    """
    if not is_hounsfield(volume):
        return volume
    return volume.replaced(volume.array.clamp(*WINDOW_HU))
