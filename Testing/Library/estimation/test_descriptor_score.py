"""The descriptor field against plain loops in float64, and as a guide to a known transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from CrossKEYLib.estimation import DescriptorGrid, DescriptorScore, descriptor_score
from CrossKEYLib.geometry import transform

SPACING_MM = 2.0
DIMS = 16
CENTRE = np.array([30.0, -20.0, 50.0])


def world(points: torch.Tensor) -> torch.Tensor:
    """Descriptors ``[N, DIMS]`` that change smoothly, over some 10 mm, and never repeat."""
    source = torch.Generator().manual_seed(0)
    waves = torch.randn(3, DIMS, generator=source) / 6
    phases = 6 * torch.rand(DIMS, generator=source)
    return F.normalize(torch.sin(points @ waves + phases), dim=1)


@pytest.fixture(scope="module")
def fixed() -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.arange(-20, 21, SPACING_MM)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    points = points + torch.tensor(CENTRE, dtype=torch.float32)
    return points, world(points)


def moving(count: int = 400) -> torch.Tensor:
    """Random points in the inner part, in the fixed frame."""
    source = torch.Generator().manual_seed(1)
    inner = 24 * torch.rand(count, 3, generator=source) - 12
    return inner + torch.tensor(CENTRE, dtype=torch.float32)


def plain_score(fixed, points, descriptors, matrix) -> float:
    places, known = (x.double() for x in fixed)
    similarity = descriptors.double() @ known.T
    deviation = similarity.std(1, correction=0, keepdim=True)
    standard = ((similarity - similarity.mean(1, True)) / deviation).clamp(-4, 4)
    total = 0.0
    for n, point in enumerate(transform.apply(matrix, points.double())):
        offset = (places - point).abs().amax(1)
        nearest = int(offset.argmin())
        if offset[nearest] <= SPACING_MM / 2:
            total += float(standard[n, nearest])
    return total / len(points)


def test_scores_equal_a_plain_loop(fixed):
    points = moving(60)
    descriptor_score = DescriptorScore(DescriptorGrid(*fixed), points, world(points))
    rng = np.random.default_rng(0)
    matrices = [transform.random_rigid(rng, 15, 20, CENTRE) for _ in range(4)] + [np.eye(4)]
    scores = descriptor_score(torch.from_numpy(np.stack(matrices)))
    expected = [plain_score(fixed, points, world(points), matrix) for matrix in matrices]
    assert scores.tolist() == pytest.approx(expected, abs=2e-3)  # kept in half precision
    assert float(scores[-1]) > 1.5


def test_places_without_a_described_point_count_nothing(fixed):
    points = moving(50)
    descriptor_score = DescriptorScore(DescriptorGrid(*fixed), points, world(points))
    far = np.eye(4)
    far[:3, 3] = 500.0
    assert float(descriptor_score(torch.from_numpy(far)[None])) == 0.0


def test_lookup_finds_the_point_of_the_cell(fixed):
    points, descriptors = fixed
    index = DescriptorGrid(points, descriptors)
    jitter = 0.9 * (torch.rand(points.shape, generator=torch.Generator().manual_seed(2)) - 0.5)
    assert torch.equal(index.lookup(points + SPACING_MM * jitter), torch.arange(len(points)))
    assert bool((index.lookup(points + 1000) == len(points)).all())


def test_the_climb_ends_at_the_true_transform(fixed):
    truth = transform.random_rigid(np.random.default_rng(3), 30, 40, CENTRE)
    there = moving()
    points = transform.apply(transform.invert(truth), there)
    descriptor_score = DescriptorScore(DescriptorGrid(*fixed), points, world(there))
    start = transform.random_rigid(np.random.default_rng(4), 3, 4, CENTRE) @ truth
    found = descriptor_score.refined(start, torch.Generator().manual_seed(0))
    error = (transform.apply(found, points) - there).norm(dim=1)
    before = (transform.apply(start, points) - there).norm(dim=1)
    assert float(before.mean()) > 2
    assert float(error.mean()) < 0.3


def test_a_part_scores_as_its_points_alone(fixed):
    points = moving(80)
    index = DescriptorGrid(*fixed)
    mask = points[:, 0] > CENTRE[0]
    whole = DescriptorScore(index, points, world(points))
    alone = DescriptorScore(index, points[mask], world(points[mask]))
    matrix = torch.eye(4)[None]
    assert float(whole.part(mask)(matrix)) == pytest.approx(float(alone(matrix)), abs=1e-6)
    assert len(whole.points) == 80  # the whole is untouched


def test_points_are_thinned_when_the_table_would_be_too_large(fixed, monkeypatch):
    points = moving()
    monkeypatch.setattr(descriptor_score, "_TABLE_ELEMENTS", 100 * len(fixed[0]))
    few = DescriptorScore(DescriptorGrid(*fixed), points, world(points))
    assert torch.equal(few.points, points[::4])
    assert few.table.numel() == 100 * (len(fixed[0]) + 1)


def test_similarity_image_holds_each_cosine_where_its_point_lies(fixed):
    points, descriptors = fixed
    kept = torch.arange(len(points)) % 3 > 0  # gaps, too
    wanted = world(moving(1))[0]
    image = DescriptorGrid(points[kept], descriptors[kept]).similarity(wanted)
    expected = descriptors @ wanted
    torch.testing.assert_close(image.sample(points[kept], "nearest"), expected[kept])
    assert float(image.sample(points[~kept], "nearest").abs().max()) == 0
