"""Every ultrasound of a sequence, registered one after another: a transform and a verdict each."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSequenceBrowserNode, vtkMRMLSequenceNode
from slicer.i18n import tr as _

from ..problem import Problem
from ..scene import chain, result_nodes

COLUMNS = ("Item", "Verdict", "Expected error (mm)", "Confidence")


def browser_of(ius: vtkMRMLScalarVolumeNode | None) -> vtkMRMLSequenceBrowserNode | None:
    """The sequence browser in which this volume shows the selected item; None if there is none."""
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if ius is not None and browser.GetSequenceNode(ius) is not None:
            return browser
    return None


class SequenceResults:
    """Collects what came of each item.

    Args:
        browser: of the sequence.
        ius: the volume that shows its selected item.

    Raises:
        Problem: the volume belongs to no sequence.
    """

    def __init__(
        self, browser: vtkMRMLSequenceBrowserNode | None, ius: vtkMRMLScalarVolumeNode
    ) -> None:
        if browser is None:
            raise Problem(_("'{name}' is not part of a sequence.").format(name=ius.GetName()))
        self.browser: vtkMRMLSequenceBrowserNode = browser
        self.images: vtkMRMLSequenceNode = browser.GetSequenceNode(ius)
        name = _("{ius} to MRI").format(ius=ius.GetName())
        kind = "vtkMRMLSequenceNode"
        self.transforms = slicer.mrmlScene.AddNewNodeByClass(kind, name)
        self.transforms.SetIndexName(self.images.GetIndexName())
        self.transforms.SetIndexUnit(self.images.GetIndexUnit())
        self.table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        for title in COLUMNS:
            column = vtk.vtkStringArray()
            column.SetName(title)
            self.table.AddColumn(column)
        result_nodes.group(self.transforms, self.table)

    @property
    def count(self) -> int:
        return self.images.GetNumberOfDataNodes()

    def select(self, item: int) -> None:
        """Let the volume show this item."""
        self.browser.SetSelectedItemNumber(item)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self.browser)

    def add(self, item: int, report: dict[str, Any]) -> None:
        """A row for an item, and its transform if it was accepted."""
        value = self.images.GetNthIndexValue(item)
        error = report.get("predicted_tre_mm")
        cells = (
            value,
            report.get("verdict") or ("accepted" if report["accepted"] else "refused"),
            "" if error is None else f"{error:.1f}",
            f"{report['confidence']:.2f}",
        )
        row = self.table.AddEmptyRow()
        for column, text in enumerate(cells):
            self.table.SetCellText(row, column, text)
        if report["accepted"]:
            node = slicer.vtkMRMLLinearTransformNode()
            chain.set_matrix(node, report["matrix_ras"])
            self.transforms.SetDataNodeAtValue(node, value)
