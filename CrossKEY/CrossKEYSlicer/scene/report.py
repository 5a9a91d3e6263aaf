"""A registration on disk: the transform, the figures, and one page that a person can read."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .. import words
from ..parameters import CrossKEYParameters
from ..problem import Problem
from . import applied, chain, dicom_registration, standing

DICOM = "registration.dcm"
TRANSFORMS = ("transform.tfm", "transform.h5")
STYLE = (
    "body{font:15px sans-serif;max-width:50em;margin:2em auto}"
    "td,th{text-align:left;padding:2px 1em 2px 0}"
)


def save(parameters: CrossKEYParameters, folder: Path) -> list[Path]:
    """Write ``report.json`` and ``report.html`` and, where a transform was applied, that as well:
    for ITK and Slicer, and for DICOM where both images came from it.

    Args:
        folder: made where it is missing; files of these names in it are replaced.

    Returns:
        The files.

    Raises:
        Problem: nothing was registered, or the folder cannot be written to.
    """
    report = applied.outcome(parameters)
    if not report:
        raise Problem(_("There is no registration to report; register first."))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "report.json", folder / "report.html"]
        _write(files[0], json.dumps(report, indent=2))
        _write(files[1], page(report, pictures()))
        if standing.was_applied(report):
            files += _write_alignment(parameters, report, folder)
    except OSError as error:
        text = _("{folder} cannot be written to: {why}")
        raise Problem(text.format(folder=folder, why=error.strerror)) from error
    return files


def without_dicom(parameters: CrossKEYParameters) -> str:
    """Why a report that was saved now holds no DICOM, in words; empty where it does."""
    report = applied.outcome(parameters)
    mri, ius = parameters.registeredMri, parameters.registeredIus
    if not standing.was_applied(report) or mri is None or ius is None:
        return _("nothing was applied.")
    return dicom_registration.obstacle(mri, ius)


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _write_alignment(
    parameters: CrossKEYParameters, report: dict[str, Any], folder: Path
) -> list[Path]:
    """From the ultrasound's own coordinates to the MRI's, whatever lies above them in the scene."""
    alignment = applied.alignment(parameters)
    node = slicer.vtkMRMLLinearTransformNode()
    chain.set_matrix(node, alignment)
    files = [_write_transform(node, folder / name) for name in TRANSFORMS]
    mri, ius = parameters.registeredMri, parameters.registeredIus
    if not dicom_registration.obstacle(mri, ius):
        said = f"CrossKEY: {report.get('verdict', 'accepted')}, research only"
        file, version = folder / DICOM, report["version"]
        files.append(dicom_registration.write(mri, ius, alignment, said, version, file))
    return files


def _write_transform(node: slicer.vtkMRMLLinearTransformNode, file: Path) -> Path:
    """In ITK's format, as Slicer reads it."""
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(file))
    if not storage.WriteData(node):
        raise Problem(_("{file} cannot be written.").format(file=file))
    return file


def pictures() -> dict[str, bytes]:
    """PNG of each slice view by its name; none without a main window."""
    manager = slicer.app.layoutManager()
    found: dict[str, bytes] = {}
    for name in manager.sliceViewNames() if manager is not None else ():
        data = qt.QByteArray()
        buffer = qt.QBuffer(data)
        buffer.open(qt.QIODevice.WriteOnly)
        manager.sliceWidget(name).sliceView().grab().save(buffer, "PNG")
        found[name] = data.data()
    return found


def page(report: dict[str, Any], images: dict[str, bytes]) -> str:
    """One page of HTML with everything in it.

    Args:
        report: `applied.outcome`.
        images: PNG by title.
    """
    said, judged = words.verdict(report), report["judged"]
    rows = {
        _("MRI"): f"{judged['mri']} ({judged['mri_image'][:16]})",
        _("Ultrasound"): f"{judged['ius']} ({judged['ius_image'][:16]})",
        _("Mask of the MRI"): judged.get("mri_mask") or _("found by CrossKEY"),
        _("Mask of the ultrasound"): judged.get("ius_mask") or _("found by CrossKEY"),
        _("Registered"): judged["time"],
        _("Model"): f"{report['model']} ({judged.get('model_sha256', '')[:16]})",
        _("Expected error"): _millimetres(report["predicted_tre_mm"]),
        _("Matches that agree"): f"{report['n_inliers']} / {report['n_matches']}",
        _("Computed on"): report["device"],
        _("CrossKEY version"): report["version"],
        _("Report written"): datetime.now().strftime("%Y-%m-%d %H:%M"),
    }
    table = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    matrix = "\n".join(
        " ".join(f"{value:10.5f}" for value in row) for row in report["matrix_ras"] or []
    )
    shown = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, data in images.items()
    )
    title = _("CrossKEY registration")
    note = _("Research software, not a medical device. Look at the overlay before you rely on it.")
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        f'<div style="{said.style}">{said.text}</div><table>{table}</table>'
        f"<p>{_('Ultrasound to MRI, RAS mm:')}</p><pre>{matrix}</pre>{shown}<p>{note}</p>"
        "</body></html>"
    )


def _millimetres(value: float | None) -> str:
    return _("unknown") if value is None else f"{value:.1f} mm"
