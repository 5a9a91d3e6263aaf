"""A sequence of ultrasound volumes, registered item by item."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TRUTH, choose, make_volume, registered

ITEMS = 3


@pytest.fixture
def swept(scene, volumes):
    """A sequence of ultrasound, and the volume that shows its selected item."""
    import slicer

    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "sweeps")
    sequence.SetIndexName("time")
    for item in range(ITEMS):
        volume = make_volume(f"sweep {item}", 10 + item)
        sequence.SetDataNodeAtValue(volume, f"{item}.5")
        scene.RemoveNode(volume)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.AddSynchronizedSequenceNode(sequence)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return volumes[0], browser.GetProxyNode(sequence)


def cells(table) -> list[list[str]]:
    rows, columns = table.GetNumberOfRows(), table.GetNumberOfColumns()
    return [[table.GetCellText(r, c) for c in range(columns)] for r in range(rows)]


def test_every_item_gets_a_row_and_a_transform(panel, swept):
    import slicer

    choose(panel, *swept)
    assert panel.ui.sequenceButton.visible
    panel.ui.sequenceButton.click()
    assert "3 of 3 items" in panel.ui.statusLabel.text
    (table,) = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLTableNode")
        if "to MRI" in node.GetName()
    ]
    assert cells(table) == [[f"{item}.5", "accepted", "1.3", "0.91"] for item in range(ITEMS)]
    (transforms,) = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode")
        if "to MRI" in node.GetName()
    ]
    assert transforms.GetNumberOfDataNodes() == ITEMS
    matrix = slicer.util.arrayFromTransformMatrix(transforms.GetNthDataNode(1))
    np.testing.assert_allclose(matrix, TRUTH, atol=1e-6)


def test_each_item_is_sent_as_it_is(logic, swept):
    """The worker sees the voxels of each item, not three times the first."""
    from CrossKEYSlicer.scene import volumes

    one, prints = logic(), []
    ask = one.worker.ask
    one.worker.ask = lambda request, listener: (
        prints.append(volumes.fingerprint(swept[1])),
        ask(request, listener),
    )
    one.registerSequence(*swept)
    assert len(set(prints)) == ITEMS


def test_refused_items_have_no_transform(logic, swept):
    found = logic("refuse").registerSequence(*swept)
    assert [row[1] for row in cells(found.table)] == ["refused"] * ITEMS
    assert found.transforms.GetNumberOfDataNodes() == 0


def test_a_cancelled_run_keeps_what_it_has(panel, swept, worker):
    import qt

    panel.logic.worker = worker("accept", 0.4)
    choose(panel, *swept)
    timer = qt.QTimer()
    timer.setInterval(600)
    timer.timeout.connect(panel.ui.cancelButton.click)
    timer.start()
    panel.ui.sequenceButton.click()
    timer.stop()
    assert "items are registered" in panel.ui.statusLabel.text
    assert "3 of 3" not in panel.ui.statusLabel.text


def test_an_ultrasound_of_no_sequence(panel, volumes, wait):
    from CrossKEYSlicer.problem import Problem

    registered(panel, wait, volumes)
    assert not panel.ui.sequenceButton.visible
    with pytest.raises(Problem, match="not part of a sequence"):
        panel.logic.registerSequence(*volumes)
