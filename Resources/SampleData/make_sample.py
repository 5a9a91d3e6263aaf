"""Make the sample case: a brain MRI and an ultrasound simulated from it, misplaced on purpose.

    python Resources/SampleData/make_sample.py ch2bet.nii.gz

``ch2bet.nii.gz`` is the Colin27 T1 average without skull from the Debian package mricron-data.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from CrossKEYLib.config import SiftConfig
from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.formats.volumes import read_volume, write_volume
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.keypoints.sift3d import detect
from CrossKEYLib.synthesis.anatomy import Anatomy, read_anatomy
from CrossKEYLib.synthesis.probe import Probe
from CrossKEYLib.synthesis.simulator import simulate
from CrossKEYLib.synthesis.style import Style

FOLDER = Path(__file__).parent
SEED = 5
SHIFT_MM, TURN_DEG = 15.0, 15.0
MARGIN_VOXELS = 6
PLACE = np.array([-40.0, -65.0, 55.0])  # left parietal cortex, RAS mm
TARGET = np.array([0.0, -15.0, 10.0])  # where the probe looks
LANDMARKS, APART_MM, SPACING_MM = 12, 12.0, 0.75
STYLE = replace(
    Style.draw(torch.Generator().manual_seed(SEED)),
    tissue_curve=(0.7, 0.8, 0.95, 1.1, 1.05, 0.9),
    sheet_gain=16.0,
    sheet_level=0.3,
    vessel_gain=1.5,
    wall_gain=9.0,
    fluid_level=0.1,
    angle_dependence=0.4,
    fading=0.5,
    mottle=0.2,
    shows_surroundings=False,
    blob_count=0,
    blob_gain=2.0,
    attenuation=0.3,
    shadow=0.3,
    near_field=2.0,
    noise=0.05,
    axial_mm=0.35,
    lateral_mm=0.6,
    lateral_growth=0.6,
    dynamic_range=4.6,
    gamma=2.0,
    speckle=0.5,
)


def main(source: str) -> None:
    mri = cropped(read_volume(source))
    anatomy = read_anatomy([mri])
    generator = torch.Generator().manual_seed(SEED)
    ius = simulate(
        anatomy, generator, probe=probe_at(anatomy), style=STYLE, spacing_mm=SPACING_MM
    ).volume
    rng = np.random.default_rng(SEED)
    misplaced = transform.random_rigid(rng, SHIFT_MM, TURN_DEG, ius.centre_ras)
    points = landmarks(mri, ius)
    write_uint8(mri, FOLDER / "MRI.nii.gz")
    visible = torch.where(ius.array > 0, 1 + 254 * ius.array, 0)  # zero stays the outside alone
    write_uint8(ius.replaced(visible).moved(misplaced), FOLDER / "iUS.nii.gz")
    truth = {"matrix_ras": transform.invert(misplaced), "shift_mm": SHIFT_MM, "turn_deg": TURN_DEG}
    write_json(truth, FOLDER / "truth.json")
    pairs = torch.cat([points, transform.apply(misplaced, points)], 1)
    rows = [",".join(f"{x:.4f}" for x in pair) for pair in pairs.tolist()]
    header = "mri_r,mri_a,mri_s,ius_r,ius_a,ius_s"
    (FOLDER / "landmarks.csv").write_text("\n".join([header, *rows]) + "\n", encoding="ascii")


def cropped(volume: Volume) -> Volume:
    """The box around everything that is not empty."""
    filled = (volume.array > 0).nonzero()
    low = (filled.amin(0) - MARGIN_VOXELS).clamp_min(0)
    high = filled.amax(0) + MARGIN_VOXELS + 1
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    shift = transform.from_parts(np.eye(3), low.flip(0).double().numpy())
    return Volume(volume.array[k, j, i].clone(), volume.ijk_to_ras @ shift)


def probe_at(anatomy: Anatomy) -> Probe:
    surface = anatomy.surface[:, :3].numpy().astype(float)
    origin = surface[np.argmin(np.linalg.norm(surface - PLACE, axis=1))]
    z = (TARGET - origin) / np.linalg.norm(TARGET - origin)
    x = np.cross([0.0, 0.0, 1.0], z)
    x /= np.linalg.norm(x)
    pose = transform.from_parts(np.stack([x, np.cross(z, x), z], 1), origin - 2 * z)
    return Probe(pose, width_mm=42, sweep_mm=62, depth_mm=60, apex_mm=70)


def landmarks(mri: Volume, ius: Volume) -> torch.Tensor:
    """Salient points of the MRI within the field of view, far from each other, ``[N, 3]`` RAS."""
    points = detect(mri, SiftConfig(peak_threshold=0.05, corner_threshold=0.0)).points
    covered = ius.replaced((ius.array > 0).float())
    around = points[:, None] + 5 * torch.cat([torch.eye(3), -torch.eye(3)])
    points = points[(covered.sample(around) > 0.99).all(1)]
    chosen = [points[0]]
    for point in points[1:]:  # strongest first
        if len(chosen) < LANDMARKS and min(float((point - c).norm()) for c in chosen) > APART_MM:
            chosen.append(point)
    return torch.stack(chosen)


def write_uint8(volume: Volume, path: Path) -> None:
    write_volume(volume, path)
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkUInt8), str(path), True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
