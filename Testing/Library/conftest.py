"""What several test files share."""

from __future__ import annotations

import pytest

from CrossKEYLib.runtime.allocator import keep_freed_memory

keep_freed_memory()  # as the commands do, or the suite takes far longer


@pytest.fixture(scope="session")
def mrml():
    """The `slicer` package of slicer-core: real MRML nodes without the application."""
    return pytest.importorskip("slicer", reason="slicer-core is not installed")
