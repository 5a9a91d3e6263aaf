"""What the panel says: verdict, progress and model, in words and a colour."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from slicer.i18n import tr as _

from .landmarks.landmark_results import ABSENT, CHECK, GOOD, Found

GREEN, RED, AMBER, GREY = "#1b7a3a", "#b3261e", "#8a5a00", "#5f6368"
ON_DARK = {RED: "#ff8a80", AMBER: "#ffc060"}  # for text on a dark window


def coloured(colour: str, dark: bool) -> str:
    """Style of emphasised text on the window itself."""
    return f"color: {ON_DARK[colour] if dark else colour}; font-weight: bold;"


@dataclass(frozen=True)
class Saying:
    """HTML, and the colour it is written on."""

    text: str
    colour: str

    @property
    def style(self) -> str:
        return f"background-color: {self.colour}; color: white; padding: 6px; border-radius: 4px;"


def verdict(outcome: dict[str, Any]) -> Saying:
    """On a registration's report; empty before the first one."""
    if not outcome:
        return Saying(_("Nothing registered yet."), GREY)
    matches = _("{inliers} of {matches} matches agree; confidence {confidence:.2f}").format(
        inliers=outcome["n_inliers"],
        matches=outcome["n_matches"],
        confidence=outcome["confidence"],
    )
    about = _("{ius} on {mri}, {time}").format(**outcome["judged"])
    matches = f"{escape(about)}<br>{matches}"
    expected = outcome["predicted_tre_mm"] or 0.0
    if outcome["outdated"]:
        was = _("accepted, expected error {mm:.1f} mm").format(mm=expected)
        was = was if outcome["accepted"] else outcome.get("verdict", _("refused"))
        title = _("OUTDATED: register again")
        text = _("The result was: {was}.").format(was=was)
        why = escape(outcome["outdated"])
        return Saying(f"<b>{title}</b><br>{why} {text}<br>{matches}", AMBER)
    if outcome["accepted"]:
        title = _("ACCEPTED: expected error {mm:.1f} mm").format(mm=expected)
        return Saying(f"<b>{title}</b><br>{matches}", GREEN)
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in outcome["reasons"])
    if outcome.get("verdict") == "doubtful":
        title = _("DOUBTFUL: shown as a preview, not applied")
        if outcome.get("applied_by_hand"):
            title = _("DOUBTFUL, and applied by you: expected error {mm:.1f} mm")
            title = title.format(mm=expected)
        return Saying(f"<b>{title}</b><ul>{reasons}</ul>{matches}", AMBER)
    title = _("REFUSED: nothing was applied")
    return Saying(f"<b>{title}</b><ul>{reasons}</ul>{matches}", RED)


STAGES = {  # of the worker, in words for the one who waits
    "reading": _("Reading the images"),
    "keypoints": _("Finding distinct points in the MRI"),
    "MRI descriptors": _("Describing the MRI"),
    "iUS descriptors": _("Describing the ultrasound"),
    "orientations": _("Trying all orientations"),
    "embedding": _("Describing the anatomy"),
    "matching": _("Comparing the images"),
    "estimation": _("Finding the position"),
    "refinement": _("Improving the position"),
    "describing the images": _("Describing the images"),
    "finding the points": _("Finding the points"),
    "similarity map": _("Comparing every position with the point"),
    "trust": _("Checking whether the result can be trusted"),
}


def stage(said: str) -> str:
    """What the worker is doing; as it says it where there are no other words."""
    return STAGES.get(said, said)


def cards(names: list[str]) -> str:
    """Which device is which graphics card."""
    if not names:
        return _("No NVIDIA graphics card was found; cpu works everywhere, mps on Apple silicon.")
    devices = ["cuda", *(f"cuda:{index}" for index in range(1, len(names)))]
    return "; ".join(f"{device}: {name}" for device, name in zip(devices, names, strict=True))


def report(count: int, without_dicom: str) -> str:
    """On files that were written."""
    text = _("{count} files written.").format(count=count)
    return f"{text} " + _("No DICOM: {why}").format(why=without_dicom) if without_dicom else text


def start(from_present: bool) -> str:
    """What a registration assumes of how the images lie."""
    if from_present:
        return _("Assumes that navigation is off by at most 4 cm.")
    return _("No assumption: all positions and orientations are searched.")


def trust(found: Found) -> Saying:
    """Whether a landmark may be relied on, and why not."""
    colour = {GOOD: GREEN, CHECK: AMBER, ABSENT: RED}[found.trust]
    if found.trust == GOOD:
        return Saying(_("good"), colour)
    texts = {
        "outside": _("outside the image"),
        "unsettled": _("no places around it choose each other"),
        "spread": _("spread too large"),
        "score": _("score too low"),
    }
    reasons = [texts[reason] for reason in found.why]
    title = _("check") if found.trust == CHECK else _("do not trust")
    return Saying(f"{title}: {', '.join(reasons)}", colour)


def landmarks(trusts: list[str], seconds: float) -> str:
    """On a finding that has ended."""
    text = _("{count} landmarks in {seconds:.0f} s, {good} of them good.")
    return text.format(count=len(trusts), seconds=seconds, good=trusts.count(GOOD))


def training(step: int, steps: int, loss: float | None, precision: float | None) -> str:
    text = _("step {step} of {steps}").format(step=step, steps=steps or "?")
    if loss is not None:
        text += _(", loss {loss:.2f}").format(loss=loss)
    if precision is not None:
        text += _(", {share:.0%} of held-out matches within 5 mm").format(share=precision)
    return text


def measured(errors: dict[str, float]) -> str:
    return _(
        "Landmarks ({count}): {before:.1f} mm before, {after:.1f} mm after registration"
    ).format(**errors)
