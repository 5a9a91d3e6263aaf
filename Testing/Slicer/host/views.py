"""Slice and 3D views without a window, drawn by Slicer's own displayable managers.

Needs EGL or OSMesa. Pictures differ a little between them, so compare with tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)
SPACE_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)


class View:
    """A render window with the displayable managers of one kind of view."""

    def __init__(self, app: Any, factory: Any, managers: tuple[str, ...], size: int) -> None:
        self.scene = app.mrmlScene()
        self.renderer, self.window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(True)
        self.window.SetMultiSamples(0)
        self.window.SetSize(size, size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory = factory.GetInstance()
        factory.SetMRMLApplicationLogic(app.applicationLogic())
        for manager in managers:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.Initialize(factory, self.renderer)

    def picture(self) -> np.ndarray:
        """What is seen, ``[height, width, 3]`` of 0 to 255, top row first."""
        self.interactor.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        pixels = vtk_to_numpy(image.GetPointData().GetScalars())
        return pixels.reshape(height, width, -1)[::-1, :, :3].copy()


class SliceView(View):
    """One slice view of the layout, such as "Red"."""

    def __init__(self, app: Any, name: str = "Red", size: int = 420) -> None:
        super().__init__(
            app, slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS, size
        )
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(app.applicationLogic())
        app.applicationLogic().GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(self.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetMappedInLayout(1)
        self.group.SetMRMLDisplayableNode(self.node)
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()

    def fit(self) -> None:
        """Zoom to the background volume; the slice stays where it is."""
        offset = self.logic.GetSliceOffset()
        self.logic.ResizeSliceNode(*self.window.GetSize())
        self.logic.FitSliceToBackground()
        self.logic.SetSliceOffset(offset)

    def picture(self) -> np.ndarray:
        pixels = self.logic.GetImageDataConnection()
        if pixels is not None:
            self._image.GetMapper().SetInputConnection(pixels)
            self.renderer.AddViewProp(self._image)
        return super().picture()


class Mouse:
    """In a slice view; Slicer's own interactor style passes on what it does."""

    def __init__(self, view: SliceView) -> None:
        self._interactor = view.interactor
        # VTK's own style would keep all events to itself from a press on.
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetDisplayableManagers(view.group)
        self._style.SetSliceLogic(view.logic)
        self._style.SetInteractor(self._interactor)
        self._ras_to_xy = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(view.node.GetXYToRAS(), self._ras_to_xy)
        self._at(0, 0, "EnterEvent")

    def take(self, ras: np.ndarray) -> None:
        """Press the left button on a place of the world."""
        self._place = np.array(self._ras_to_xy.MultiplyPoint((*ras, 1))[:2])
        self._at(*self._place, "MouseMoveEvent")
        self._at(*self._place, "LeftButtonPressEvent")

    def drag(self, pixels: int) -> None:
        """To the right, pixel by pixel."""
        for _ in range(pixels):
            self._place[0] += 1
            self._at(*self._place, "MouseMoveEvent")

    def release(self) -> None:
        self._at(*self._place, "LeftButtonReleaseEvent")

    def _at(self, x: float, y: float, event: str) -> None:
        self._interactor.SetEventInformation(round(x), round(y))
        self._interactor.InvokeEvent(event)


class SpaceView(View):
    """The 3D view."""

    def __init__(self, app: Any, size: int = 420) -> None:
        super().__init__(
            app, slicer.vtkMRMLThreeDViewDisplayableManagerFactory, SPACE_MANAGERS, size
        )
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(app.applicationLogic())
        app.applicationLogic().GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(self.scene)
        self.node = self.logic.AddViewNode("1")
        self.node.SetMappedInLayout(1)
        self.group.SetMRMLDisplayableNode(self.node)

    def picture(self) -> np.ndarray:
        self.renderer.ResetCamera()
        return super().picture()
