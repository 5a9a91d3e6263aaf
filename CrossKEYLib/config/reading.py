"""YAML files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import InputError


def read_yaml(path: str | PathLike[str]) -> Any:
    """Content of a YAML file, in plain types.

    Raises:
        InputError: missing, unreadable, no text or no YAML.
    """
    import yaml  # Slicer does not ship it, and the worker behind the panel needs none

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; give a YAML file") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not valid YAML: {reason}") from error
