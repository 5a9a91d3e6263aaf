"""elastix in a process of its own: ITK's Python package and SimpleITK cannot share one.

    python -m CrossKEYLib.evaluation.elastix_process FIXED MOVING OUTPUT

Writes the centre and the six parameters of ITK's Euler transform as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(fixed: str, moving: str, output: str) -> None:
    import itk  # type: ignore[import-not-found]  # an optional peer

    images = [itk.imread(path, itk.F) for path in (fixed, moving)]
    settings = itk.ParameterObject.New()
    settings.AddParameterMap(itk.ParameterObject.GetDefaultParameterMap("rigid"))
    _, found = itk.elastix_registration_method(
        *images, parameter_object=settings, log_to_console=False
    )
    values = found.GetParameterMap(0)
    names = {"centre": "CenterOfRotationPoint", "parameters": "TransformParameters"}
    written = {name: [float(v) for v in values[key]] for name, key in names.items()}
    Path(output).write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
