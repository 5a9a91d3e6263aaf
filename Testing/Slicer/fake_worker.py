"""Speaks the protocol of `CrossKEYLib.worker` without computing: quick, and as bad as wished.

    python fake_worker.py MODE [SECONDS]

MODE: accept, refuse, doubt, slow (never answers), crash (after its first progress), garbage
(between its answers), fail (an expected error), cut (half an answer, then the end), deaf (ends at
once).
SECONDS: how long a registration or a search for landmarks takes.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from pathlib import Path

# From ultrasound to MRI, RAS mm: a turn by 10 degrees about S, and a shift.
MATRIX = [
    [0.98480775, -0.17364818, 0.0, 12.0],
    [0.17364818, 0.98480775, 0.0, -7.0],
    [0.0, 0.0, 1.0, 4.0],
    [0.0, 0.0, 0.0, 1.0],
]
FEW = "Only 4 of 40 matches agree on one position; chance alone can reach 5."
SYMBOLS = "The expected error is not < 3.0 mm & the matches lie close together."
MATCHES = 40
OUTLIERS = 10  # of them, the last


def moved(point: list[float]) -> list[float]:
    return [sum(MATRIX[i][j] * point[j] for j in range(3)) + MATRIX[i][3] for i in range(3)]


def matches() -> dict[str, list]:
    ius = [[(i * 7) % 30 - 15.0, (i * 11) % 26 - 13.0, (i * 5) % 20 - 10.0] for i in range(MATCHES)]
    inlier = [i < MATCHES - OUTLIERS for i in range(MATCHES)]
    off = [0.5 + 0.05 * i if good else 9.0 for i, good in enumerate(inlier)]
    mri = [[x + d, y, z] for (x, y, z), d in zip(map(moved, ius), off, strict=True)]
    score = [1 - i / MATCHES for i in range(MATCHES)]
    return {"mri": mri, "ius": ius, "score": score, "residual_mm": off, "inlier": inlier}


def report(mode: str) -> dict:
    verdict = {"refuse": "refused", "doubt": "doubtful"}.get(mode, "accepted")
    accepted = verdict == "accepted"
    reasons = [] if accepted else [FEW, SYMBOLS]
    return {
        "accepted": accepted,
        "verdict": verdict,
        "reasons": reasons,
        "confidence": 0.91 if accepted else 0.12,
        "matrix_ras": MATRIX,
        "predicted_tre_mm": 1.3 if accepted else 9.9,
        "n_matches": MATCHES,
        "n_inliers": MATCHES - OUTLIERS if accepted else 4,
        "seconds": {"total": 0.1},
        "device": "cpu",
        "model": "fake",
        "version": "0",
        "matches": matches(),
    }


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def go_through(stages: tuple[str, ...], mode: str, seconds: float, number: int) -> bool:
    """Whether the work is done and only the result is missing."""
    for stage in stages:
        say(id=number, kind="progress", stage=stage)
        if mode == "crash":
            print("out of memory, or so", file=sys.stderr, flush=True)
            os._exit(9)
        if mode == "garbage":
            print('no json\n[1, 2]\n{"id": 999, "kind": "result"}\n\x00\x01', flush=True)
        if mode == "slow":
            time.sleep(3600)
        time.sleep(seconds / len(stages))
    if mode == "cut":
        print('{"id": 1, "kind": "result", "acc', end="", flush=True)
        os._exit(0)
    if mode == "fail":
        say(id=number, kind="error", message="the MRI shows too little brain", expected=True)
        return False
    return True


def register(mode: str, seconds: float, number: int, request: dict) -> None:
    files = [Path(request[name]).stat().st_size for name in ("mri", "ius")]
    stages = ("keypoints", "MRI descriptors", "iUS descriptors", "matching", "estimation")
    if go_through(stages, mode, seconds, number):
        say(id=number, kind="result", request=request, files=files, **report(mode))


def landmarks(mode: str, seconds: float, number: int, request: dict) -> None:
    """Moves points as the ultrasound; the second is doubtful, the third must not be trusted, the
    fifth lies outside."""
    files = [Path(request[name]).stat().st_size for name in ("from_image", "to_image")]
    if not go_through(("describing the images", "finding the points"), mode, seconds, number):
        return
    points = request["points"]
    count = len(points)
    why = [[], ["spread"], ["spread", "score"], [], ["outside"]][:count]
    if request["similarity"]:
        write_map(Path(request["similarity"]["output"]), moved(request["similarity"]["point"]))
    say(id=number, kind="result", request=request, files=files,
        points=[moved(point) for point in points], scores=[0.9, 0.8, 0.5, 0.9, 0.9][:count],
        spreads=[0.6, 2.5, 30.0, 0.7, 0.7][:count], why=why,
        found=["good", "check", "absent", "good", "absent"][:count],
        seconds={"total": 0.1})  # fmt: skip


def write_map(path: Path, middle: list[float]) -> None:
    """8 x 8 x 8 voxels of 4 mm around a point, whose own is 1 and all others 0.5; NRRD."""
    origin = ",".join(str(x - 16) for x in middle)
    head = (
        "NRRD0005\ntype: float\ndimension: 3\nspace: right-anterior-superior\nsizes: 8 8 8\n"
        "space directions: (4,0,0) (0,4,0) (0,0,4)\nkinds: domain domain domain\n"
        f"endian: little\nencoding: raw\nspace origin: ({origin})\n\n"
    )
    values = [0.5] * 512
    values[4 + 8 * (4 + 8 * 4)] = 1.0
    path.write_bytes(head.encode() + struct.pack("<512f", *values))


def prepare(mode: str, number: int, request: dict) -> None:
    output = Path(request["output"])
    checkpoint = output.with_suffix(".training.pt")
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(first + 1, 21):
        checkpoint.write_text(str(step))
        precision = 0.02 * step if step % 5 == 0 else None
        say(id=number, kind="training", step=step, steps=20, loss=5 - 0.2 * step,
            precision=precision, seconds=0.1 * step)  # fmt: skip
        time.sleep(3600 if mode == "slow" and step == 7 else 0.005)
    output.write_text("a trained model")
    checkpoint.unlink()
    say(id=number, kind="result", output=str(output), name=output.stem, mri=["?"],
        history={"first": first}, contrasts=len(request["mri"]))  # fmt: skip


def main(mode: str, seconds: float) -> None:
    if mode == "deaf":
        sys.exit(3)
    say(id=None, kind="ready", version="0")
    for line in sys.stdin:
        request = json.loads(line)
        number, task = request.pop("id"), request.pop("do")
        if task == "register":
            register(mode, seconds, number, request)
        elif task == "landmarks":
            landmarks(mode, seconds, number, request)
        else:
            prepare(mode, number, request)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
