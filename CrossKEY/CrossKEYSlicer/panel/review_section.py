"""Clicks in the section Review: comparing before and after, deciding, undoing, measuring."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from .. import words
from ..scene import applied, report, result_nodes, views
from .blink import Blink
from .section import Section


class ReviewSection(Section):
    """
    Attributes:
        blink: shows ultrasound and MRI in turn.
        pickFolder: asks for a folder; empty when a person declines.
    """

    blink: Blink
    pickFolder: Callable[[], str]

    def onViews(self) -> None:
        with self.told():
            self.logic.setUpViews()

    def onReport(self) -> None:
        folder = self.pickFolder()
        if folder:
            with self.told():
                files = self.logic.saveReport(folder)
                self.tell(words.report(len(files), report.without_dicom(self._parameters)))

    def onBeside(self, beside: bool) -> None:
        if self._parameters is None:
            return
        with self.told():
            self.ui.blinkCheckBox.setChecked(False)
            self.logic.showBeside(bool(beside))

    def onCheckerboard(self, shown: bool) -> None:
        if self._parameters is not None:
            with self.told():
                self.logic.showCheckerboard(bool(shown))

    def onBlink(self, on: bool) -> None:
        if on:
            self.blink.start()
        elif self._parameters is not None:
            self.blink.stop(self._parameters.fade)

    def onApply(self) -> None:
        with self.told():
            self.logic.applyPreview()
            self.logic.setUpViews()
            self.tell(_("Applied on your decision."))

    def onDiscard(self) -> None:
        self.logic.discardPreview()
        self.tell(_("The preview was removed; nothing was moved."))

    def onUndo(self) -> None:
        with self.told():
            if applied.moved_by_hand(self._parameters) and not self.ask(
                applied.undo_says(self._parameters)
            ):
                return
            self.logic.undo()
            self.tell(_("The previous transform is restored."))

    def onMeasure(self) -> None:
        with self.told():
            self.ui.measureLabel.setText(words.measured(self.logic.evaluate()))

    def onAfter(self, after: bool) -> None:
        if self._parameters is not None:
            self.logic.showAfter(bool(after))

    def onFade(self, opacity: float) -> None:
        if self._parameters is not None:
            views.fade(self._parameters, opacity)

    def onMatchSelected(self) -> None:
        row = self.ui.matchTable.currentRow()
        if self._parameters is not None and row >= 0:
            views.jump(result_nodes.match_place(self._parameters, row))
