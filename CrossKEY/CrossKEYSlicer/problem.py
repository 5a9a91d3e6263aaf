"""What is told to the person at the panel or the console when something cannot be done."""

from __future__ import annotations


class Problem(RuntimeError):
    """One plain sentence or two that say what is wrong and what to do."""


class Cancelled(Problem):
    """The work was stopped on request."""
