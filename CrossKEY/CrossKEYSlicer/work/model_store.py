"""The patient's trained model: where it lies, whose it is, and that it is still the same file."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from ..problem import Problem
from ..scene.volumes import fingerprint
from .process import library_folder

GENERAL = "crosskey-general.pt"
AGAIN = _("Prepare this MRI, or press Forget to use the general model.")


def model_folder() -> Path:
    """Beside the saved scene, else in the user's application data."""
    saved = slicer.mrmlScene.GetURL()
    if saved:
        return Path(saved).absolute().parent
    base = qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppDataLocation)
    return Path(base) / "CrossKEY"


def model_path_for(mri: slicer.vtkMRMLScalarVolumeNode) -> Path:
    """The same for the same image, so that an interrupted training goes on; no patient's name."""
    return model_folder() / f"crosskey-patient-{fingerprint(mri)[:16]}.pt"


def sha256(path: Path) -> str:
    found = path.stat()
    return _sha256(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=8)
def _sha256(path: Path, changed: int, size: int) -> str:
    """Read once for each state of the file: the panel asks at every click."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def checksum(model: str | None) -> str:
    """Of the file that a registration uses, the bundled general model without one."""
    general = Path(library_folder()) / "Resources" / "Models" / GENERAL
    path = Path(model) if model else general
    return sha256(path) if path.is_file() else ""


def remember(parameters: CrossKEYParameters, path: Path, mri_fingerprint: str) -> None:
    parameters.modelPath = str(path)
    parameters.modelSha256 = sha256(path)
    parameters.modelMri = mri_fingerprint


def forget(parameters: CrossKEYParameters) -> None:
    """Use the general model from now on; the file stays."""
    parameters.modelPath = parameters.modelSha256 = parameters.modelMri = ""


def usable_model(parameters: CrossKEYParameters) -> str | None:
    """Path of the patient's model; None when there is none and the general one serves.

    Raises:
        Problem: it belongs to another MRI, is gone, or is not the file that was trained.
    """
    if not parameters.modelPath:
        return None
    path = Path(parameters.modelPath)
    if not path.is_file():
        raise Problem(_("The trained model {path} is gone. ").format(path=path) + AGAIN)
    if sha256(path) != parameters.modelSha256:
        raise Problem(_("The trained model {path} was changed. ").format(path=path) + AGAIN)
    if parameters.mri is not None and fingerprint(parameters.mri) != parameters.modelMri:
        raise Problem(_("The trained model belongs to another MRI. ") + AGAIN)
    return str(path)
