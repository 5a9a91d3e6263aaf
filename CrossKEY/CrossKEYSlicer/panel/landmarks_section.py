"""Clicks in the section Landmarks: points of one image found in another, and similarity maps."""

from __future__ import annotations

from slicer.i18n import tr as _

from ..landmarks import landmark_results, landmark_search, similarity
from ..scene import views
from . import install, panel_state
from .section import Section


class LandmarksSection(Section):
    """
    Attributes:
        _found: the landmarks as they were shown last.
    """

    _found: list[landmark_results.Found]

    def _showLandmarks(self) -> None:
        """Only when they are others than those shown, since that may move the views, and not while
        they are being filled in."""
        found = landmark_results.rows(self._parameters)
        if not self.logic.busy and repr(found) != repr(self._found):
            self._found = found
            panel_state.show_landmarks(self.ui, found)

    def onPlace(self) -> None:
        landmark_search.place_points(self._parameters)

    def onFind(self) -> None:
        with self.told():
            install.ensure_torch(self.logic, self.ask)
            self.logic.startLandmarks()
            self._showProgress()

    def onLandmarkSelected(self) -> None:
        """Each image to its point, and the map if that is wanted."""
        found = self._selectedLandmark()
        if found is None:
            return
        with self.told():
            p = self._parameters
            given, place = landmark_results.in_world(p, found)
            views.jump_pair(p.foundFrom, given, p.foundTo, place)
            self._mapSelected()

    def onSimilarity(self, shown: bool) -> None:
        if self._parameters is None:
            return
        if not shown:
            similarity.hide(self._parameters)
        elif self._selectedLandmark() is None:
            self.tell(_("Select a point in the table to see its similarity map."))
        else:
            with self.told():
                self._mapSelected()

    def _selectedLandmark(self) -> landmark_results.Found | None:
        if self._parameters is None:
            return None
        self._showLandmarks()  # an image or a point may be gone since
        row = self.ui.landmarkTable.currentRow()
        return self._found[row] if 0 <= row < len(self._found) else None

    def _mapSelected(self) -> None:
        """Compute the map of the selected point, unless other work is under way."""
        found = self._selectedLandmark()
        if found is None or self.logic.busy or not self._parameters.similarityShown:
            return
        if similarity.is_of(self._parameters, found):
            similarity.overlay(self._parameters)
        else:
            self.logic.startSimilarity(found)
