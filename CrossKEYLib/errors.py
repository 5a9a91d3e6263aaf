"""The errors of this library. Each message is one line that says what to do."""

from __future__ import annotations


class CrossKEYError(Exception):
    """Base of every error this library raises on purpose; its text is one plain line."""


class InputError(CrossKEYError):
    """An image, transform, landmark or configuration file that cannot be used as given."""


class ModelError(CrossKEYError):
    """A model file that is unreadable, of the wrong kind, or made for another patient."""


class EstimationError(CrossKEYError):
    """An estimate that the data cannot support (too few or degenerate correspondences)."""


class InputWarning(UserWarning):
    """An input that could be read in more than one way, or was corrected; one line says how."""
