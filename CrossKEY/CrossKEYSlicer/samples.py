"""The bundled case in Slicer's Sample Data module."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .work.process import library_folder

NAME = "CrossKEYCase"
FILES = {  # node name: (file, SHA-256)
    "MRI": ("MRI.nii.gz", "2b170718d159771ce716855e33709267d2794b14bb150a06bb2c4fac87320247"),
    "iUS": ("iUS.nii.gz", "d7cc40d43b250e4bd75de54304b567a8586760d88720031cbcbaa52c6dcffb40"),
}


def sample_folder() -> Path:
    """Beside the library in a checkout and in an installed extension alike."""
    return Path(library_folder()) / "Resources" / "SampleData"


def sample_file(name: str) -> Path:
    """
    Raises:
        ValueError: the file is not the one that was released.
    """
    file, expected = FILES[name]
    path = sample_folder() / file
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(f"{path} is damaged; install CrossKEY again")
    return path


def register_samples(thumbnail: str) -> None:
    """Once Slicer has started and has the Sample Data module."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="CrossKEY",
        sampleName=NAME,
        thumbnailFileName=thumbnail,
        uris=[(sample_folder() / file).as_uri() for file, _ in FILES.values()],
        fileNames=[f"CrossKEY-{file}" for file, _ in FILES.values()],
        checksums=[f"SHA256:{checksum}" for _, checksum in FILES.values()],
        nodeNames=list(FILES),
    )
