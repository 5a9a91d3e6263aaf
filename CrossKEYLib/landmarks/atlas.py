"""Labels of one head carried to another by registration."""

from __future__ import annotations

from ..errors import EstimationError
from ..geometry.volume import Grid, Volume
from ..models.universal import UniversalModel
from .inverse_consistency import register_inverse_consistent

MOST_INCONSISTENCY_MM = 6.0  # at most; heads differ by more than an affine map


def carry_labels(
    atlas: Volume,
    labels: Volume,
    image: Volume,
    model: UniversalModel | None = None,
    *,
    seed: int = 0,
) -> Volume:
    """Lay the structures of an atlas on another patient's image by an affine registration.

    An affine map brings large structures to within a few mm; folds of the cortex are beyond it.

    Args:
        atlas: head that the labels belong to; of any contrast.
        labels: structures on any grid in the atlas's world, whole numbers, 0 for none.
        image: of any patient, contrast and field of view.
        model: universal embedding; the bundled one when missing.
        seed: of everything random.

    Returns:
        The labels on the grid of ``image``; 0 where the atlas knows nothing.

    Raises:
        InputError: an image is constant.
        EstimationError: the forward and the backward registration disagree.
    """
    model = model or UniversalModel.load()
    found = register_inverse_consistent(image, atlas, model, transform_kind="affine", seed=seed)
    error = found.inverse_consistency_mm
    if found.matrix is None or error is None or error > MOST_INCONSISTENCY_MM:
        apart = "one of the two registrations failed"
        if error is not None:
            apart = f"the forward and the backward registration lie {error:.1f} mm apart"
        raise EstimationError(
            f"the atlas could not be laid on the image: {apart}, at most "
            f"{MOST_INCONSISTENCY_MM:.0f} mm is accepted; give labels of this patient, or none"
        )
    return labels.moved(found.matrix).resample(Grid.of(image), "nearest")
