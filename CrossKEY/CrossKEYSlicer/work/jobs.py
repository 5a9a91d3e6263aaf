"""The jobs of the module: what each asks of the worker, and what becomes of the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .. import words
from ..landmarks import landmark_results, landmark_search, similarity
from ..landmarks.landmark_results import Found
from ..parameters import CrossKEYParameters
from ..scene import applied, chain, masks, standing, training_nodes, volumes
from . import model_store
from .job import Job, new_job
from .runner import JobRunner


class Jobs(JobRunner):
    """Begins registration, preparation, landmarks and similarity maps; each call returns at once.

    The images and settings are those of the scene's parameters.
    """

    parameters: CrossKEYParameters

    def startRegistration(self) -> None:
        """
        Raises:
            Problem: the input cannot be used.
        """
        parameters = self.parameters
        mri, ius = parameters.mri, parameters.ius
        self._checkIdle()
        volumes.check_pair(mri, ius)
        for mask in (parameters.mriMask, parameters.iusMask):
            masks.check(mask)
        model = model_store.usable_model(parameters)
        initial = chain.present_alignment(mri, ius)
        if parameters.transform is not None:
            chain.check_place(mri, ius, parameters.transform)
        with new_job("register", mri, ius) as job:
            request = {
                "do": "register",
                "mri": volumes.write_volume(mri, job.folder / "mri.nrrd"),
                "ius": volumes.write_volume(ius, job.folder / "ius.nrrd"),
                "mri_mask": masks.write(parameters.mriMask, mri, job.folder / "mri-mask.nrrd"),
                "ius_mask": masks.write(parameters.iusMask, ius, job.folder / "ius-mask.nrrd"),
                "model": model,
                "initial": initial.tolist() if parameters.fromPresent else None,
                "device": parameters.device,
                "transform": "affine" if parameters.affine else "rigid",
                "seed": parameters.seed,
            }
            judged = standing.judged(mri, ius)
            judged["model_sha256"] = model_store.checksum(model)
            judged |= masks.names(parameters)
            take = applied.take
            self._begin(
                job, request, lambda result: take(self.parameters, mri, ius, result, judged)
            )

    def startPreparation(self) -> None:
        """
        Raises:
            Problem: the input cannot be used.
        """
        parameters = self.parameters
        self._checkIdle()
        volumes.check_volume(parameters.mri, _("MRI"))
        more = (parameters.secondContrast, parameters.thirdContrast)
        nodes = list(dict.fromkeys([parameters.mri, *filter(None, more)]))
        for node in nodes:
            volumes.check_volume(node, _("MRI"))
        output = model_store.model_path_for(parameters.mri)
        output.parent.mkdir(parents=True, exist_ok=True)
        training_nodes.begin_training(parameters)
        with new_job("prepare", *nodes) as job:
            files = [job.folder / f"{index}.nrrd" for index in range(len(nodes))]
            request = {
                "do": "prepare",
                "mri": [volumes.write_volume(*pair) for pair in zip(nodes, files, strict=True)],
                "synthetic_us": parameters.syntheticFolder or None,
                "output": str(output),
                "minutes": parameters.minutes,
                "device": parameters.device,
            }
            self._begin(
                job, request, lambda _result: self._remember(output, nodes[0]), self._trained
            )

    def startLandmarks(self) -> None:
        """
        Raises:
            Problem: the input cannot be used.
        """
        parameters = self.parameters
        self._checkIdle()
        asked = landmark_search.question(parameters)
        similarity.outdate(parameters)
        images = (asked.from_volume, asked.to_volume)
        with new_job("landmarks", *images, asked.node) as job:
            request = landmark_search.request(parameters, images, job.folder, asked.points.tolist())
            show = landmark_results.show
            self._begin(job, request, lambda result: show(self.parameters, asked, result))

    def startSimilarity(self, found: Found) -> None:
        """
        Raises:
            Problem: the images cannot be used.
        """
        parameters = self.parameters
        self._checkIdle()
        images = (parameters.foundFrom, parameters.foundTo)
        with new_job("similarity", *images) as job:
            file = job.folder / "similarity.nrrd"
            wanted = {"point": found.given.tolist(), "output": str(file)}
            request = landmark_search.request(parameters, images, job.folder, [], wanted)
            self._begin(job, request, lambda _result: similarity.show(self.parameters, found, file))

    def _trained(self, job: Job, answer: dict[str, Any]) -> None:
        step, steps = answer["step"], answer["steps"]
        figures = (answer["loss"], answer["precision"])
        job.stage = words.training(step, steps, *figures)
        job.share = step / steps if steps else None
        training_nodes.add_training_step(self.parameters, step, *figures)

    def _remember(self, model: Path, mri: Any) -> None:
        model_store.remember(self.parameters, model, volumes.fingerprint(mri))
