"""Where measures of agreement have their optimum, near the best rigid fit to the landmarks.

    python -m Testing.Studies.refinement_measures --case CASE24 CASE21 --mri T1.nii.gz FLAIR.nii.gz

From that fit, and from starts up to 4 mm and 4 degrees off it, each measure is optimised over the
six rigid parameters. A measure that sees what experts see stays where it is; the table tells how
far it goes. Each ``--mri`` gives a pair with simulated ultrasound that is deformed against it: its
landmarks are 500 places, and the figure is what the measure adds to their best rigid fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize

from CrossKEYLib.config import JointConfig
from CrossKEYLib.estimation.feature_pair import FeaturePair, aligned
from CrossKEYLib.estimation.joint_refinement import JointObjective, refine_jointly
from CrossKEYLib.estimation.target_error import landmark_fit, target_errors
from CrossKEYLib.evaluation.cases import Case, deformed_cases, find_case, real_cases
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.filters import gaussian, sample_channels
from CrossKEYLib.geometry.intensity import gamma_normalised, rescaled
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.keypoints.sampling import interior_points, moving_points
from CrossKEYLib.models.patient import Model
from CrossKEYLib.registration.features import PatchFeatures, SelfSimilarities

STARTS = ((0.0, 0.0), (2.0, 3.0), (4.0, 4.0))  # mm and degrees off the fit
POINTS = 12_000  # of the oriented measures
SPACING_MM = 0.6  # at which these read both images
SCALE = 0.02  # standard deviation of the iUS's size that the fit with a scale expects
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # entries of a symmetric matrix


@dataclass(frozen=True, eq=False)
class Situation:
    """One pair and a start; ``ius`` is gamma-normalised."""

    mri: Volume
    ius: Volume
    start: Matrix


Measure = Callable[[Situation], Matrix]


def summed(
    config: JointConfig,
    spacing_mm: float = 1.0,
    inset_mm: float = 3.0,
    brightest: float = 1.0,
    scaled: bool = False,
) -> Measure:
    """MIND-SSC and LC2 with these weights, fitted at once to all of the field of view.

    Args:
        spacing_mm: of MIND-SSC.
        inset_mm: by which its points lie in the field of view.
        brightest: share of these points that is kept.
        scaled: whether the iUS may have another size meanwhile; the transform stays rigid.
    """

    def found(given: Situation) -> Matrix:
        features = SelfSimilarities(given.mri, spacing_mm)
        seen = FeaturePair.of(features, given.ius, torch.empty(0, 3), given.start)
        points = interior_points(given.ius, inset_mm=inset_mm)
        values = given.ius.sample(points)
        points = points[values >= torch.quantile(values, 1 - brightest)]
        objective = JointObjective.of(
            given.mri, given.ius, replace(seen, points=points), given.start, config
        )
        assert objective is not None
        if not scaled:
            return objective.matrix(objective.minimised(np.zeros(6)))

        def value(x: np.ndarray) -> float:
            size, centre = 1 + SCALE * x[6], objective.centre
            other = replace(
                objective,
                places=(objective.places - centre) * size + centre,
                patches=(objective.patches - centre) * size + centre,
            )
            return 1000 * other.value(x[:6]) + 0.05 * x[6] ** 2

        best = minimize(value, np.zeros(7), method="BFGS", options={"eps": 0.1, "gtol": 0.3}).x
        return objective.matrix(best[:6])

    return found


def staged(given: Situation) -> Matrix:
    """What registration does with ``refine="mind+lc2"``."""
    seen, fit = aligned(SelfSimilarities(given.mri), given.ius, torch.empty(0, 3), given.start)
    return refine_jointly(given.mri, given.ius, seen, fit.matrix)


def encoder(given: Situation) -> Matrix:
    """The general model's own dense features."""
    features = PatchFeatures(Model.load().encoder, rescaled(given.mri))  # type: ignore[arg-type]
    points = moving_points(given.ius, 3000, torch.Generator().manual_seed(0))
    return aligned(features, given.ius, points, given.start)[1].fitted


def oriented(kind: str, scale_mm: float) -> Measure:
    """Normals of both images on each other: cosine between the fields of their outer products.

    Args:
        kind: "gradient", or of which ridges of the MRI on bright ridges of the iUS: "dark",
            "bright" or "both".
        scale_mm: Gaussian sigma.
    """

    def found(given: Situation) -> Matrix:
        points = interior_points(given.ius, most=POINTS)
        own = _tensors(given.ius, "gradient" if kind == "gradient" else "bright", scale_mm, points)
        places = transform.apply(given.start, points)
        grid = Grid.around(places.numpy(), SPACING_MM, 8.0)
        cells = grid.points().reshape(-1, 3)
        field = _tensors(given.mri, kind, scale_mm, cells).T.reshape(6, *grid.shape)
        to_grid, centre = transform.invert(grid.ijk_to_ras), places.mean(0)
        radius = float((places - centre).square().sum(1).mean().sqrt())

        def matrix(x: np.ndarray) -> Matrix:
            turn = torch.matrix_exp(_skew(torch.as_tensor(x[3:] / radius))).numpy()
            return transform.about(centre.double().numpy(), turn, x[:3])

        def value(x: np.ndarray) -> float:
            move = matrix(x)
            there = sample_channels(field, to_grid, transform.apply(move, places)).T
            here = _turned(own, torch.as_tensor((move @ given.start)[:3, :3]).float())
            return -1000 * float((here * there).sum() / (here.norm() * there.norm() + 1e-9))

        best = minimize(value, np.zeros(6), method="BFGS", options={"eps": 0.1, "gtol": 0.3}).x
        return matrix(best) @ given.start

    return found


def _tensors(image: Volume, kind: str, scale_mm: float, points: torch.Tensor) -> torch.Tensor:
    """``[N, 6]`` outer products of unit normals, off-diagonal entries times the root of two,
    weighted by strength: that of the gradient, or of the curvature across a sheet."""
    grid = Grid.around(points.numpy(), SPACING_MM, 4.0)
    array = gaussian(rescaled(image.resample(grid)).array, scale_mm / SPACING_MM)
    shown = gaussian((image.resample(grid).array > 0).float(), 1.0 / SPACING_MM) > 0.9
    slopes = torch.gradient(array)[::-1]  # along i, j, k: R, A, S, as the grid's axes
    if kind == "gradient":
        entries = torch.stack([slopes[a] * slopes[b] for a, b in _PAIRS])
    else:
        second = [torch.gradient(slope)[::-1] for slope in slopes]
        entries = torch.stack([second[a][b] for a, b in _PAIRS])
    values = sample_channels(entries * shown, transform.invert(grid.ijk_to_ras), points).T
    sizes, axes = torch.linalg.eigh(_symmetric(values).double())
    strength = sizes[:, 2].clamp_min(0) if kind in ("dark", "both", "gradient") else 0 * sizes[:, 0]
    outer = strength[:, None, None] * axes[:, :, 2:] * axes[:, None, :, 2]
    if kind in ("bright", "both"):
        outer = outer - sizes[:, :1, None].clamp_max(0) * axes[:, :, :1] * axes[:, None, :, 0]
    size = outer.diagonal(dim1=1, dim2=2).sum(1)
    level = torch.quantile(size[size > 0][:1_000_000], 0.8) if bool((size > 0).any()) else 1.0
    return _entries(outer / (size + level)[:, None, None]).float()


def _symmetric(entries: torch.Tensor) -> torch.Tensor:
    xx, yy, zz, xy, xz, yz = entries.unbind(1)
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).view(-1, 3, 3)


def _entries(matrices: torch.Tensor) -> torch.Tensor:
    return torch.stack([matrices[:, a, b] * (1 if a == b else 2**0.5) for a, b in _PAIRS], 1)


def _turned(entries: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    plain = entries / torch.tensor([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    return _entries(turn @ _symmetric(plain) @ turn.T)


def _skew(vector: torch.Tensor) -> torch.Tensor:
    x, y, z = vector.unbind()
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)


ONE_MIND = JointConfig(lc2_weight=0.0, patches=200, patch_points=4)  # LC2 has no say
MEASURES: dict[str, Measure] = {
    "MIND-SSC, 0.75 mm": summed(ONE_MIND, 0.75),
    "MIND-SSC, 1 mm": summed(ONE_MIND),
    "MIND-SSC, 1.5 mm": summed(ONE_MIND, 1.5),
    "MIND-SSC, 2 mm": summed(ONE_MIND, 2.0),
    "MIND-SSC, 8 mm inside": summed(ONE_MIND, inset_mm=8.0),
    "MIND-SSC, brightest quarter": summed(ONE_MIND, brightest=0.25),
    "MIND-SSC and a scale": summed(ONE_MIND, scaled=True),
    "LC2, 2.5 mm": summed(JointConfig(lc2_weight=1e3)),
    "LC2, 4.5 mm": summed(JointConfig(lc2_weight=1e3, patch_radius_mm=4.5, patch_points=64)),
    "gradients, 0.7 mm": oriented("gradient", 0.7),
    "gradients, 1 mm": oriented("gradient", 1.0),
    "on dark ridges, 0.7 mm": oriented("dark", 0.7),
    "on dark ridges, 1 mm": oriented("dark", 1.0),
    "on dark ridges, 1.5 mm": oriented("dark", 1.5),
    "on dark and bright ridges, 1 mm": oriented("both", 1.0),
    "general model": encoder,
    "MIND-SSC + 0.1 LC2": summed(JointConfig(lc2_weight=0.1)),
    "MIND-SSC + 0.3 LC2": summed(JointConfig()),
    "MIND-SSC + 1 LC2": summed(JointConfig(lc2_weight=1.0)),
    "MIND-SSC, then both": staged,
}


def row(case: Case, measures: Sequence[str], starts: int) -> dict[str, str]:
    """For each measure: mean error over the starts less that of the fit where the pair is
    simulated, the largest, and the turn and shift against the fit, means too."""
    images = case.load()
    fixed, moving = images.targets_fixed, images.targets_moving
    assert fixed is not None
    assert moving is not None
    fit, ius = landmark_fit(fixed, moving), gamma_normalised(images.ius)
    floor = float(target_errors(fit, fixed, moving).mean())
    less = 0.0 if case.kind == "real" else floor
    middle, found = moving.double().mean(0, keepdim=True), {"best rigid fit": f"{floor:.2f}"}
    for name in measures:
        figures = []
        for seed, size in enumerate(STARTS[:starts]):
            off = transform.random_rigid(np.random.default_rng(seed), *size, ius.centre_ras)
            matrix = MEASURES[name](Situation(images.mri, ius, fit @ off))
            error = float(target_errors(matrix, fixed, moving).mean()) - less
            turn = transform.rotation_angle_deg(matrix @ transform.invert(fit))
            shift = transform.rms_displacement_mm(middle, matrix, fit)
            figures.append((error, turn, shift))
        error, turn, shift = np.mean(figures, 0)
        most = max(error for error, _, _ in figures)
        found[name] = f"{error:.2f} (to {most:.2f}; {turn:.1f} deg, {shift:.1f} mm)"
        print(f"{case.mri}, {case.ius}: {name}: {found[name]}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs="*", type=Path, default=[], help="folders, one a patient")
    parser.add_argument("--mri", nargs="*", type=Path, default=[], help="for deformed pairs")
    parser.add_argument("--measures", nargs="*", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--starts", type=int, default=len(STARTS), help="the first so many")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = [case for folder in args.case for case in real_cases(*find_case(folder))]
    cases += deformed_cases(args.mri, 1)
    rows = [row(case, args.measures, args.starts) for case in cases]
    print("\n| measure | " + " | ".join(f"{case.mri}" for case in cases) + " |")
    print("|---" * (len(cases) + 1) + "|")
    for name in rows[0]:
        print(f"| {name} | " + " | ".join(found[name] for found in rows) + " |")


if __name__ == "__main__":
    main()
