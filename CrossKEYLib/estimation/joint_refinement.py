"""Refinement by two similarities at once: MIND-SSC and LC2 in very small patches.

In real images, the optimum of each measure lies some millimetres from the landmarks of experts, in
different directions. Self-similarities (Heinrich et al., MICCAI 2013) follow the borders of tissue.
LC2 (Fuerst et al., Medical Image Analysis 18(8), 2014) in balls of a few millimetres follows single
bright lines of the ultrasound, pia and vessels. The error of their sum is smaller than that of
either. It is differentiated by PyTorch and minimised by BFGS over the six rigid parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from ..config import JointConfig
from ..geometry import transform
from ..geometry.filters import gaussian, sample_channels
from ..geometry.intensity import rescaled
from ..geometry.transform import Matrix
from ..geometry.volume import Grid, Volume
from ..keypoints.sampling import interior_points
from .feature_pair import FeaturePair

_MARGIN_MM = 7.0  # of the MRI around the ultrasound
_FILL_MM = 3.0  # Gaussian sigma over which the rim of the MRI is continued beyond it
_FINE_MM, _COARSE_MM = 0.6, 1.5  # Gaussian sigmas, whose difference shows thin lines
_SHOWN = 0.9  # of the MRI within about 1 mm of a sample that counts
_FEWEST = 50  # patches wholly on the MRI
_GRADIENT = 5e-3  # relative to the objective, per mm: tolerance of the search
_ITERATIONS = 40


def refine_jointly(
    mri: Volume,
    ius: Volume,
    seen: FeaturePair,
    initial: Matrix,
    config: JointConfig | None = None,
) -> Matrix:
    """Improve a rigid transform by MIND-SSC and LC2 together.

    Every other cube of the field of view, and the remaining cubes, are fitted separately. If the
    two fits agree, noise did not cause them, and all cubes are fitted.

    Args:
        mri: fixed image, zero where it shows nothing.
        ius: gamma-normalised, zero outside its field of view.
        seen: MIND-SSC of both images near ``initial``.
        initial: ``T_fixed_moving``, 4x4, RAS mm, within about 3 mm and some degrees.
        config: settings.

    Returns:
        ``T_fixed_moving``; ``initial`` itself where no better one is found.
    """
    config = config or JointConfig()
    objective = JointObjective.of(mri, ius, seen, initial, config)
    if objective is None:
        return initial
    steps = [half.minimised(np.zeros(6)) for half in objective.halves(config.block_mm)]
    first, second = (objective.matrix(step) for step in steps)
    points = seen.points.double()
    if transform.rms_displacement_mm(points, first, second) > config.agreement_mm:
        return initial
    refined = objective.matrix(objective.minimised(np.mean(steps, 0)))
    moved = transform.rms_displacement_mm(points, initial, refined)
    return refined if moved <= config.reach_mm else initial


@dataclass(frozen=True, eq=False)
class JointObjective:
    """Mean robust residual of MIND-SSC minus the weighted share of the iUS that LC2 explains.

    A step ``[6]`` is a shift and a rotation vector times ``radius``, both mm, about ``centre`` (RAS
    mm) in the MRI's world, after ``initial``.

    Attributes:
        seen: features of both images.
        places: ``[N, 3]`` where ``initial`` puts their points, RAS mm.
        wanted: ``[N, D]`` features of the iUS there.
        patches: ``[P, M, 3]`` where ``initial`` puts points of the iUS, patch by patch.
        intensity: ``[P, M]`` of the iUS there, minus the mean of each patch.
        channels: ``[4, K, J, I]`` intensity, gradient magnitude and lines of the MRI, and where it
            shows anything.
        ijk_to_ras: ``[4, 4]`` of that grid.
        centre, radius: middle of the places ``[3]`` and their root mean square distance from it.
        initial: ``T_fixed_moving``.
        config: settings.
    """

    seen: FeaturePair
    places: torch.Tensor
    wanted: torch.Tensor
    patches: torch.Tensor
    intensity: torch.Tensor
    channels: torch.Tensor
    ijk_to_ras: Matrix
    centre: torch.Tensor
    radius: float
    initial: Matrix
    config: JointConfig

    @classmethod
    def of(
        cls, mri: Volume, ius: Volume, seen: FeaturePair, initial: Matrix, config: JointConfig
    ) -> JointObjective | None:
        """None where too little of the ultrasound lies on the MRI."""
        points = _patches(ius, config)
        places = transform.apply(initial, points)
        found = _channels(mri, places, config.spacing_mm)
        if found is None:
            return None
        dense = transform.apply(initial, seen.points)
        centre = dense.mean(0)
        made = cls(
            seen,
            dense,
            seen.moving.sample(seen.points),
            places,
            _centred(_smooth(ius, config).sample(points)),
            *found,
            centre,
            max(float((dense - centre).square().sum(1).mean().sqrt()), 1.0),
            initial,
            config,
        )
        return made if int(made._explained(places)[1].sum()) >= _FEWEST else None

    def matrix(self, step: np.ndarray) -> Matrix:
        """``T_fixed_moving`` after a step."""
        turn = Rotation.from_rotvec(step[3:] / self.radius).as_matrix()
        return transform.about(self.centre.double().cpu().numpy(), turn, step[:3]) @ self.initial

    def value(self, step: np.ndarray) -> float:
        return float(self._value(torch.as_tensor(step)))

    def halves(self, block_mm: float) -> tuple[JointObjective, JointObjective]:
        """The same over every other cube of the field of view, and over the others; their steps
        are about the same centre."""
        back = transform.invert(self.initial)
        even = [
            torch.floor(transform.apply(back, places) / block_mm).long().sum(1) % 2 == 0
            for places in (self.places, self.patches.mean(1))
        ]
        first, second = (
            replace(
                self,
                places=self.places[points],
                wanted=self.wanted[points],
                patches=self.patches[patches],
                intensity=self.intensity[patches],
            )
            for points, patches in (even, [~chosen for chosen in even])
        )
        return first, second

    def minimised(self, step: np.ndarray) -> np.ndarray:
        """The step ``[6]`` at the minimum near another one."""
        size = max(abs(self.value(step)), 1e-6)

        def value_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
            at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
            value = self._value(at) / size
            (slope,) = torch.autograd.grad(value, at)
            return float(value.detach()), slope.numpy()

        options = {"gtol": _GRADIENT, "maxiter": _ITERATIONS}
        return minimize(value_and_slope, step, jac=True, method="BFGS", options=options).x

    def _value(self, step: torch.Tensor) -> torch.Tensor:
        move = self._motion(step)
        cosine = (self.seen.fixed.sample(move(self.places)) * self.wanted).sum(1)
        residual = 2 - 2 * cosine
        explained, shown = self._explained(move(self.patches))
        weight = self.intensity.square().mean(1) * shown
        share = (weight * explained).sum() / weight.sum().clamp_min(1e-12)
        # Geman-McClure at the scale of a residual of one: cosine 0.5.
        return (residual / (residual + 1)).mean() - self.config.lc2_weight * share

    def _motion(self, step: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        x, y, z = (step[3:] / self.radius).unbind()
        zero = torch.zeros_like(x)
        skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
        turn = torch.matrix_exp(skew).to(self.places)
        shift = step[:3].to(self.places)
        return lambda points: (points - self.centre) @ turn.T + self.centre + shift

    def _explained(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Share of the iUS's variance that the MRI explains in each patch ``[P]``, and whether the
        MRI shows all of the patch."""
        values = sample_channels(self.channels, transform.invert(self.ijk_to_ras), places)
        shown = values[-1].detach().amin(1) > 0.5
        fixed = _centred(values[:-1])
        count = places.shape[1]
        gram = torch.einsum("apm,bpm->pab", fixed, fixed) / count
        gram = gram + self.config.ridge * torch.eye(len(fixed), device=gram.device)
        both = torch.einsum("apm,pm->pa", fixed, self.intensity) / count
        part = (both * torch.linalg.solve(gram, both[..., None])[..., 0]).sum(1)
        return part / self.intensity.square().mean(1).clamp_min(1e-9), shown


def _centred(values: torch.Tensor) -> torch.Tensor:
    return values - values.mean(-1, keepdim=True)


def _patches(ius: Volume, config: JointConfig) -> torch.Tensor:
    """Points ``[P, M, 3]`` RAS mm, spread evenly over balls in the field of view; not random."""
    centres = interior_points(ius, most=config.patches)
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(len(centres), config.patch_points, 3, generator=generator)
    reach = torch.rand(len(centres), config.patch_points, 1, generator=generator) ** (1 / 3)
    offsets = config.patch_radius_mm * reach * way / way.norm(dim=-1, keepdim=True)
    return centres[:, None] + offsets.to(centres)


def _smooth(ius: Volume, config: JointConfig) -> Volume:
    """The iUS on an isotropic grid, blurred within its field of view."""
    grid = Grid.along(ius, config.spacing_mm)
    filled = (ius.replaced((ius.array > 0).float()).resample(grid).array > 0.5).float()
    sigma = config.smooth_mm / config.spacing_mm
    blurred = gaussian(ius.resample(grid).array * filled, sigma)
    return Volume(blurred / gaussian(filled, sigma).clamp_min(1e-3), grid.ijk_to_ras)


def _channels(
    mri: Volume, places: torch.Tensor, spacing_mm: float
) -> tuple[torch.Tensor, Matrix] | None:
    """Intensity and gradient magnitude of the MRI around places ``[..., 3]``, both in standard
    deviations, and where it shows anything: ``[3, K, J, I]``, with the affine of that grid. None
    where it shows nothing."""
    grid = Grid.around(places.reshape(-1, 3).cpu().numpy(), spacing_mm, _MARGIN_MM)
    crop = mri.resample(grid)
    if not bool(crop.array.amax() > crop.array.amin()):
        return None
    array = rescaled(crop).array
    filled = (array > 0).float()
    shown = gaussian(filled, 1.0 / spacing_mm) > _SHOWN
    if int(shown.sum()) < _FEWEST:
        return None
    # The MRI is continued beyond its rim, which would else be the strongest border.
    share = gaussian(filled, _FILL_MM / spacing_mm)
    beyond = gaussian(array * filled, _FILL_MM / spacing_mm) / share.clamp_min(1e-3)
    level = array[shown].mean()
    array = torch.where(filled > 0, array, torch.where(share > 0.01, beyond, level)) - level
    array = array / array[shown].std().clamp_min(1e-9)
    slope = torch.stack(torch.gradient(gaussian(array, 0.6))).norm(dim=0)
    lines = gaussian(array, _FINE_MM / spacing_mm) - gaussian(array, _COARSE_MM / spacing_mm)
    slope, lines = (x / x[shown].std().clamp_min(1e-9) for x in (slope, lines))
    return torch.stack([array, slope, lines, shown.float()]), grid.ijk_to_ras
