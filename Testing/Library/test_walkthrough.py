"""The notebook of docs/ runs as it stands, and what it computes is right."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient

from CrossKEYLib.estimation.target_error import target_errors
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.formats.transforms import read_transform
from CrossKEYLib.runtime.resources import resource

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "walkthrough.ipynb"
FIGURES = 11
# Printed by the kernel after the last cell, where the notebook's own values can still be seen.
VALUES = """
print(json.dumps({
    "before": tre_before, "after": tre_after, "precision": precision,
    "first": float(target_errors(first.matrix, *landmarks).mean()),
    "accepted": bool(result), "foreign_accepted": bool(foreign),
    "foreign_reasons": foreign.trust.reasons, "outcomes": outcomes,
    "similar": float((similarity.points_ras((similarity.array == similarity.array.max())
                      .nonzero()[:1])[0] - place_in_mri).norm()),
}))
"""


def text_of(cell: nbformat.NotebookNode) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def pictures_of(cells: list[nbformat.NotebookNode]) -> list[np.ndarray]:
    found = [
        o.data["image/png"] for c in cells for o in c.outputs if "image/png" in o.get("data", {})
    ]
    return [imread(io.BytesIO(base64.b64decode(png))) for png in found]


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[nbformat.NotebookNode, Path, dict]:
    """The notebook with its outputs, the folder it ran in, and the values it holds."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(VALUES))
    folder = tmp_path_factory.mktemp("walkthrough")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # the kernel works elsewhere
        patch.setenv(
            "OMP_WAIT_POLICY", "passive"
        )  # spinning threads would take a busy machine's time
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    values = json.loads(text_of(notebook.cells.pop()))
    return notebook, folder / "walkthrough-output", values


def test_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_every_step_is_right(executed):
    _, _, values = executed
    assert values["before"] > 12
    assert values["after"] < 1
    assert values["first"] < 3
    assert values["precision"] > 0.3
    assert values["similar"] < 5
    assert values["accepted"]


def test_the_foreign_pair_is_refused(executed):
    notebook, _, values = executed
    assert not values["foreign_accepted"]
    assert values["foreign_reasons"]
    said = "".join(text_of(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert "accepted with confidence" in said
    assert "refused with confidence" in said


def test_its_small_benchmark_succeeds(executed):
    outcomes = executed[2]["outcomes"]
    assert [o["level"] for o in outcomes] == ["0 / 0", "10 / 10", "20 / 20"]
    for outcome in outcomes:
        assert outcome["tre_mm"] < 1
        assert outcome["accepted"]


def test_figures_show_something(executed):
    notebook, _, _ = executed
    pictures = pictures_of([cell for cell in notebook.cells if cell.cell_type == "code"])
    assert len(pictures) == FIGURES
    for picture in pictures:
        assert min(picture.shape[:2]) > 300
        assert picture[..., :3].std() > 0.105  # empty axes with their labels: 0.06 dark, 0.10 white


def test_the_files_for_slicer_hold_the_result(executed):
    _, output, values = executed
    matrix = read_transform(output / "iUS_to_MRI.tfm")
    errors = target_errors(matrix, *read_landmark_pairs(resource("SampleData") / "landmarks.csv"))
    assert float(errors.mean()) == pytest.approx(values["after"], abs=0.01)
    assert (output / "scene.mrml").stat().st_size > 0
