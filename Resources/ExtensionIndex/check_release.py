"""Whether the extension can be given to the extension index: `make release-check`.

The repository's address is written in one place, ``scm_url`` of CrossKEY.json; CMake reads it
there too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

ENTRY = Path(__file__).with_name("CrossKEY.json")
PLACEHOLDER = "example.org"  # reserved by RFC 2606, never a real address


def problem(entry: Path = ENTRY) -> str:
    """Why the index would not take it, in one line; empty if it would."""
    address = json.loads(entry.read_text(encoding="utf-8"))["scm_url"]
    parts = urlsplit(address)
    if parts.hostname == PLACEHOLDER:
        return f"{entry.name}: scm_url is still the placeholder {address}; set the repository's own"
    if parts.scheme != "https" or not parts.path.endswith(".git"):
        return f"{entry.name}: expected scm_url as https://....git, got {address}"
    if "Slicer" not in Path(parts.path).name:
        return f"{entry.name}: the repository's name must contain 'Slicer', got {address}"
    return ""


if __name__ == "__main__":
    sys.exit(problem() or 0)
