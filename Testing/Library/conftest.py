"""What several test files share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def mrml():
    """The `slicer` package of slicer-core: real MRML nodes without the application."""
    return pytest.importorskip("slicer", reason="slicer-core is not installed")
