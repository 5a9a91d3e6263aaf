"""All choices and results of the module, kept in the scene so that they are saved with it."""

from __future__ import annotations

from typing import Annotated, Union

import slicer
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

# The wrapper takes several classes of nodes in this spelling alone.
Mask = Union[slicer.vtkMRMLLabelMapVolumeNode, slicer.vtkMRMLSegmentationNode, None]  # noqa: UP007
DEVICES = ["auto", "cpu", "cuda", "cuda:1", "cuda:2", "cuda:3", "mps"]


@parameterNodeWrapper
class CrossKEYParameters:
    """Widgets of the same names are tied to these (property SlicerParameterName).

    Attributes:
        mri, ius: what is registered to what.
        mriMask, iusMask: the brain in the MRI, and what the ultrasound shows; found when missing.
        secondContrast, thirdContrast: more MRI of the patient, in the first one's world.
        syntheticFolder: ready-made synthetic ultrasound; simulated when empty.
        minutes: for the training.
        modelPath, modelSha256, modelMri: the patient's model, what the file must be, and the
            fingerprint of the MRI that it belongs to.
        transform: holds the correction.
        fromPresent: search around the alignment of the scene.
        autoRegister: register again when a new ultrasound is there.
        after: show the scene after registration, else before.
        viewsSetUp: the slice views show a registration; they are not arranged again unasked.
        beside: MRI and ultrasound are shown beside each other, not over each other.
        layoutBefore: the layout of the views before that; 0 for none.
        checkerboard: the ultrasound is shown in every other cube only.
        fade: opacity of the ultrasound over the MRI.
        blinkRate: how often in a second the ultrasound appears while it blinks.
        keypointsShown, inliersShown, linesShown: which results are drawn.
        mriLandmarks, iusLandmarks: corresponding points, to measure the error.
        landmarksFrom, landmarksTo: points of the one are found in the other.
        landmarkPoints: these points.
        landmarksAgain: find them again when one was moved or added.
        similarityShown: lay the similarity map of the selected point over its image.
        foundFrom, foundTo: of the last finding, whatever has been chosen since.
        registeredMri, registeredIus, registeredTransform: of the last accepted registration,
            whatever has been chosen since.
        judgedMri, judgedIus: of the last registration, accepted or not.
        checkerVolume: shows the checkerboard.
        previewVolume, previewTransform: show a doubtful result.
        pending: matrix and matches of that, JSON; empty when nothing waits for a decision.
        affine: stretch and shear, too.
        seed: of everything random.
        lastSeconds: how long the last registration took.
        outcome: report of the last registration, JSON.
        correction: the matrices before and after the accepted one, JSON; see `chain.Correction`.
    """

    mri: slicer.vtkMRMLScalarVolumeNode
    ius: slicer.vtkMRMLScalarVolumeNode
    mriMask: Mask
    iusMask: Mask
    secondContrast: slicer.vtkMRMLScalarVolumeNode
    thirdContrast: slicer.vtkMRMLScalarVolumeNode
    syntheticFolder: str = ""
    minutes: Annotated[float, WithinRange(0.1, 600.0)] = 10.0
    device: Annotated[str, Choice(DEVICES)] = "auto"
    modelPath: str = ""
    modelSha256: str = ""
    modelMri: str = ""
    transform: slicer.vtkMRMLLinearTransformNode
    fromPresent: bool = False
    autoRegister: bool = False
    after: bool = True
    viewsSetUp: bool = False
    beside: bool = False
    layoutBefore: int = 0
    checkerboard: bool = False
    keypointsShown: bool = True
    inliersShown: bool = True
    linesShown: bool = True
    fade: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    blinkRate: Annotated[float, WithinRange(0.5, 5.0)] = 1.5
    mriLandmarks: slicer.vtkMRMLMarkupsFiducialNode
    iusLandmarks: slicer.vtkMRMLMarkupsFiducialNode
    landmarksFrom: slicer.vtkMRMLScalarVolumeNode
    landmarksTo: slicer.vtkMRMLScalarVolumeNode
    landmarkPoints: slicer.vtkMRMLMarkupsFiducialNode
    landmarksAgain: bool = False
    similarityShown: bool = False
    foundFrom: slicer.vtkMRMLScalarVolumeNode
    foundTo: slicer.vtkMRMLScalarVolumeNode
    foundLandmarks: slicer.vtkMRMLMarkupsFiducialNode
    landmarkTable: slicer.vtkMRMLTableNode
    similarityMap: slicer.vtkMRMLScalarVolumeNode
    registeredMri: slicer.vtkMRMLScalarVolumeNode
    registeredIus: slicer.vtkMRMLScalarVolumeNode
    registeredTransform: slicer.vtkMRMLLinearTransformNode
    previewVolume: slicer.vtkMRMLScalarVolumeNode
    checkerVolume: slicer.vtkMRMLScalarVolumeNode
    previewTransform: slicer.vtkMRMLLinearTransformNode
    pending: str = ""
    affine: bool = False
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    lastSeconds: float = 0.0
    judgedMri: slicer.vtkMRMLScalarVolumeNode
    judgedIus: slicer.vtkMRMLScalarVolumeNode
    mriKeypoints: slicer.vtkMRMLMarkupsFiducialNode
    iusKeypoints: slicer.vtkMRMLMarkupsFiducialNode
    inliers: slicer.vtkMRMLMarkupsFiducialNode
    matchLines: slicer.vtkMRMLModelNode
    matchTable: slicer.vtkMRMLTableNode
    trainingTable: slicer.vtkMRMLTableNode
    trainingChart: slicer.vtkMRMLPlotChartNode
    lossSeries: slicer.vtkMRMLPlotSeriesNode
    precisionSeries: slicer.vtkMRMLPlotSeriesNode
    outcome: str = ""
    correction: str = ""
