"""``crosskey evaluate``: target registration error from landmark pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .common import DONE, Json, say, say_json

if TYPE_CHECKING:
    from ..geometry.transform import Matrix


def evaluate(
    landmarks: Annotated[
        list[Path],
        typer.Option(help="Pairs: .tag or .csv; or MRI points, then iUS: .mrk.json, .fcsv, .csv."),
    ],
    report: Annotated[Path | None, typer.Option(help="Report of register, .json.")] = None,
    transform: Annotated[Path | None, typer.Option(help="Transform from iUS to MRI, .tfm.")] = None,
    initial: Annotated[
        Path | None, typer.Option(help="Transform before registration; none when missing.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Print the distance between corresponding landmarks before and after registration."""
    if (report is None) == (transform is None):
        raise InputError("give either --report or --transform, one of them")
    import numpy as np

    from ..estimation.target_error import target_errors
    from ..formats.landmarks import read_landmark_pairs
    from ..formats.transforms import read_transform

    matrix = read_transform(transform) if transform is not None else _reported(report)
    before = np.eye(4) if initial is None else read_transform(initial)
    pairs = read_landmark_pairs(landmarks)
    errors = {
        "before_mm": target_errors(before, *pairs).tolist(),
        "after_mm": target_errors(matrix, *pairs).tolist(),
    }
    if as_json:
        figures = {name: _summary(values) for name, values in errors.items()}
        say_json({"n_landmarks": len(pairs[0]), **figures})
    else:
        _tell(errors["before_mm"], errors["after_mm"])
    return DONE


def _reported(path: Path | None) -> Matrix:
    """The matrix of a report file.

    Raises:
        InputError: no report, or one without a transform.
    """
    import numpy as np

    try:
        content = json.loads(Path(str(path)).read_text(encoding="utf-8"))
        matrix = content["matrix_ras"]
        if matrix is not None:
            matrix = np.asarray(matrix, float)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a report of crosskey register; check the path") from error
    if matrix is None:
        raise InputError(f"{path}: that registration found no transform; there is none to evaluate")
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: matrix_ras is not a finite 4x4 matrix; run register again")
    return matrix


def _summary(values: list[float]) -> dict[str, Any]:
    import numpy as np

    shown = {"mean": np.mean(values), "median": np.median(values), "max": np.max(values)}
    return {k: round(float(v), 3) for k, v in shown.items()} | {
        "per_landmark": [round(value, 3) for value in values]
    }


def _tell(before: list[float], after: list[float]) -> None:
    say("target registration error, mm\nlandmark    before     after")
    for number, pair in enumerate(zip(before, after, strict=True), 1):
        say(f"{number:8d}" + "".join(f"{value:10.2f}" for value in pair))
    first, second = _summary(before), _summary(after)
    for name in ("mean", "median", "max"):
        say(f"{name:>8}{first[name]:10.2f}{second[name]:10.2f}")
