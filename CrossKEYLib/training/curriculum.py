"""How hard training is at each epoch; pure functions, so that no worker can miss a change.

Numbers of the CrossKEY paper (arXiv 2507.18551), whose run has 2,000 epochs. A shorter run climbs
the same ramps in the same share of its length. Epochs may be fractions, for runs planned by time.
"""

from __future__ import annotations

import math

PUBLISHED_EPOCHS = 2000


def hardness(
    epoch: float, total_epochs: float = PUBLISHED_EPOCHS, ramp_epochs: float = 200
) -> float:
    """Share of the hardest-in-batch choice of negatives, 0 to 1, reached after 200 epochs."""
    return _ramp(epoch, total_epochs, ramp_epochs)


def rotation_deg(
    epoch: float,
    total_epochs: float = PUBLISHED_EPOCHS,
    ramp_epochs: float = 1000,
    largest_deg: float = 30.0,
) -> float:
    """Largest rotation of the MRI patch about each axis, 0 to 30 degrees after 1,000 epochs."""
    return largest_deg * _ramp(epoch, total_epochs, ramp_epochs)


def learning_rate(
    epoch: float,
    total_epochs: float = PUBLISHED_EPOCHS,
    highest: float = 1e-3,
    lowest: float = 1e-6,
) -> float:
    """Half a cosine from ``highest`` at epoch 0 to ``lowest`` at the end and after it."""
    progress = min(max(epoch / max(total_epochs, 1e-9), 0.0), 1.0)
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2


def _ramp(epoch: float, total_epochs: float, ramp_epochs: float) -> float:
    """0 to 1 over ``ramp_epochs``, shortened in proportion when the whole run is shorter."""
    ramp = ramp_epochs * min(total_epochs / PUBLISHED_EPOCHS, 1.0)
    return min(max(epoch / max(ramp, 1e-9), 0.0), 1.0)
