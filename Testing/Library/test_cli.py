"""The command line: exit status, one clear line on bad input, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms.registered import TRUTH, outcome, pair
from phantoms.training import small_encoder, texture
from phantoms.universal import settled_model

from CrossKEYLib import cli
from CrossKEYLib.estimation import RigidResult
from CrossKEYLib.formats.landmarks import read_markups, write_markups
from CrossKEYLib.formats.transforms import read_transform, write_transform
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.keypoints.sift3d import detect
from CrossKEYLib.landmarks.inverse_consistency import InverseConsistency
from CrossKEYLib.models.patient import Model
from CrossKEYLib.registration import pipeline

ROOT = Path(__file__).parents[2]
COMMANDS = ["demo", "prepare", "register", "keypoints", "synthesize", "landmark", "evaluate"]
COMMANDS += ["train", "test", "pretrain", "benchmark"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "CrossKEYLib", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def refused(capsys, *arguments: object) -> str:
    """The one line that a command line is turned away with."""
    assert cli.main([str(a) for a in arguments]) == 2
    said, complained = capsys.readouterr()
    assert said == ""
    assert complained.count("\n") == 1
    assert complained.startswith("crosskey: ")
    return complained.removeprefix("crosskey: ").strip()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pair, a model and landmarks on disk."""
    folder = tmp_path_factory.mktemp("input")
    mri, ius = pair()
    mri.write(folder / "mri.nii.gz")
    ius.write(folder / "ius.nii.gz")
    Model(small_encoder().eval(), "small").save(folder / "model.pt")
    write_transform(np.eye(4), folder / "start.tfm")
    write_transform(TRUTH, folder / "truth.tfm")
    moving = torch.tensor([[0.0, 30.0, 60.0], [5.0, 35.0, 65.0], [-5.0, 40.0, 55.0]])
    pairs = torch.cat([transform.apply(TRUTH, moving), moving], 1).tolist()
    (folder / "pairs.csv").write_text("\n".join(",".join(map(str, row)) for row in pairs))
    return folder


@pytest.fixture
def registering(files, tmp_path, monkeypatch):
    """Arguments of ``register`` where the work itself is replaced."""

    def choose(result):
        monkeypatch.setattr("CrossKEYLib.registration.pipeline.register", lambda *a, **k: result)
        given = ["--mri", files / "mri.nii.gz", "--ius", files / "ius.nii.gz"]
        given += ["--model", files / "model.pt", "--output", tmp_path / "out.tfm"]
        return [*given, "--report", tmp_path / "out.json", "--figures", tmp_path / "new" / "fig"]

    return choose


def test_help_and_version_do_not_load_torch(tmp_path):
    code = (
        "import sys; from CrossKEYLib.cli import main; status = main(['--help']);"
        "heavy = {'torch', 'scipy', 'SimpleITK', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout.decode() for name in COMMANDS)


def test_every_command_explains_itself(capsys):
    for name in COMMANDS:
        assert cli.main([name, "--help"]) == 0
        assert f"crosskey {name}" in capsys.readouterr().out


def test_version_is_that_of_the_project(capsys):
    assert cli.main(["--version"]) == 0
    version = capsys.readouterr().out.strip()
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()


def test_bad_input_as_a_process(tmp_path, files):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    given = ("register", "--mri", files / "mri.nii.gz", "--ius", bad, "--model", files / "model.pt")
    done = process(*given, "--output", "out.tfm", "--report", "out.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "bad.nii.gz" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bad.nii.gz"]


def test_refusal_as_a_process(tmp_path, files):
    """Unrelated images, for real: a report, no transform, and an old transform gone."""
    ball = Volume.read(files / "ius.nii.gz")
    texture(44, seed=9).write(tmp_path / "other.nii.gz")
    (tmp_path / "out.tfm").write_text("of an earlier run")
    start = tmp_path / "start.tfm"
    write_transform(np.eye(4), start)
    given = ["register", "--mri", "other.nii.gz", "--ius", files / "ius.nii.gz"]
    given += ["--model", files / "model.pt", "--initial", start, "--output", "out.tfm"]
    done = process(*given, "--report", "out.json", "--json", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "out.json").read_text())
    assert report["accepted"] is False
    assert report["verdict"] == "refused"
    assert report["reasons"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.nii.gz", "out.json", "start.tfm"]
    assert ball.shape == (44, 44, 44)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
def test_interruption_as_a_process(tmp_path, files):
    command = [sys.executable, "-m", "CrossKEYLib", "synthesize", "--mri", files / "mri.nii.gz"]
    command += ["--output", tmp_path / "out", "--count", "5000"]
    # A suite run in the background ignores interrupts, and its children would inherit that.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("out/.crosskey-*/*")) and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said, complained = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said == ""
    assert complained == "crosskey: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_accepted_registration(registering, tmp_path, capsys):
    assert cli.main(["register", *map(str, registering(outcome()))]) == 0
    said, complained = capsys.readouterr()
    assert complained == ""
    assert "accepted: confidence 0.97" in said
    np.testing.assert_allclose(read_transform(tmp_path / "out.tfm"), TRUTH, atol=1e-9)
    report = json.loads((tmp_path / "out.json").read_text())
    np.testing.assert_allclose(report["matrix_ras"], TRUTH)
    drawn = sorted(p.name for p in (tmp_path / "new" / "fig").iterdir())
    assert drawn == [
        "checkerboard.png",
        "keypoints.png",
        "matches.png",
        "matches_3d.png",
        "overlay.png",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "out.json", "out.tfm"]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_doubtful_registration_is_written_only_when_allowed(
    registering, tmp_path, capsys, allowed
):
    arguments = [*map(str, registering(outcome(doubtful=True)))]
    (tmp_path / "out.tfm").write_text("of an earlier run")
    assert cli.main(["register", *arguments, *(["--allow-doubtful"] if allowed else [])]) == 3
    said = capsys.readouterr().out
    assert "DOUBTFUL, look at it before use: confidence 0.97" in said
    assert "Too few matches agree." in said
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["verdict"], report["accepted"]) == ("doubtful", False)
    assert (tmp_path / "out.tfm").exists() is allowed
    if allowed:
        np.testing.assert_allclose(read_transform(tmp_path / "out.tfm"), TRUTH, atol=1e-9)


def test_what_is_refused_is_not_written_even_when_doubt_is_allowed(registering, tmp_path):
    arguments = [*map(str, registering(outcome(accepted=False)))]
    assert cli.main(["register", *arguments, "--allow-doubtful"]) == 3
    assert not (tmp_path / "out.tfm").exists()
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "refused"


@pytest.fixture
def embedding(files, tmp_path, monkeypatch):
    """Arguments of ``register --method embedding`` where the search is replaced by its outcome."""

    def choose(inverse_consistency_mm: float | None, structure_margin: float = 0.1):
        matrix, inliers = np.eye(4), torch.ones(7, dtype=torch.bool)
        matrix[:3, 3] = 3, 4, 5
        result = InverseConsistency(RigidResult(matrix, inliers, 0.5, 7), inverse_consistency_mm)
        name = "CrossKEYLib.registration.by_embedding.register_inverse_consistent"
        monkeypatch.setattr(name, lambda *a, **k: result)
        name = "CrossKEYLib.registration.by_embedding.structure_margin"
        monkeypatch.setattr(name, lambda *a: structure_margin)
        given = ["register", "--method", "embedding", "--report", tmp_path / "out.json"]
        given += ["--fixed", files / "mri.nii.gz", "--moving", files / "ius.nii.gz"]
        return [str(a) for a in (*given, "--output", tmp_path / "out.tfm")]

    return choose


@pytest.mark.parametrize(
    ("agree_mm", "margin", "verdict"),
    [
        (1.25, 0.1, "doubtful"),
        (4.5, 0.1, "refused"),
        (None, 0.1, "refused"),
        (1.25, -0.01, "refused"),
    ],
)
def test_registration_by_embedding(embedding, tmp_path, capsys, agree_mm, margin, verdict):
    arguments = embedding(agree_mm, margin)
    (tmp_path / "out.tfm").write_text("of an earlier run")
    assert cli.main(arguments) == 3
    said, complained = capsys.readouterr()
    assert complained == ""
    assert said.lower().startswith(verdict)
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["verdict"], report["accepted"]) == (verdict, False)
    assert report["inverse_consistency_mm"] == agree_mm
    assert report["structure_margin"] == margin
    assert (report["n_inliers"], report["n_matches"], report["inlier_rms_mm"]) == (7, 7, 0.5)
    assert not (tmp_path / "out.tfm").exists()
    (reason,) = report["reasons"]
    assert reason in said


def test_a_doubtful_embedding_is_written_when_allowed(embedding, tmp_path):
    assert cli.main([*embedding(1.5), "--allow-doubtful"]) == 3
    written = json.loads((tmp_path / "out.json").read_text())["matrix_ras"]
    np.testing.assert_allclose(read_transform(tmp_path / "out.tfm"), written)
    assert cli.main([*embedding(30.0), "--allow-doubtful"]) == 3
    assert not (tmp_path / "out.tfm").exists()


def test_registration_by_embedding_turns_away_what_it_does_not_know(
    embedding, files, tmp_path, capsys
):
    for option, value, message in [
        ("--initial", files / "start.tfm", "--initial does not apply to --method embedding"),
        ("--mri-mask", files / "mri.nii.gz", "--mri-mask does not apply"),
        ("--ius-mask", files / "ius.nii.gz", "--ius-mask does not apply"),
        ("--figures", tmp_path / "fig", "--figures does not apply"),
        ("--model", files / "model.pt", "expected a universal embedding"),
    ]:
        assert message in refused(capsys, *embedding(1.0), option, value)
    assert list(tmp_path.iterdir()) == []


def test_refused_without_any_transform(registering, tmp_path, capsys):
    arguments = registering(outcome(accepted=False, found=False))
    assert cli.main(["register", *map(str, arguments), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["matrix_ras"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "out.json"]


def mask_file(path: Path, volume: Volume, marked: torch.Tensor, step: int = 2) -> Path:
    """A 16-bit label volume on every ``step``-th voxel of the volume's grid."""
    labels = sitk.GetImageFromArray((5 * marked[::step, ::step, ::step]).numpy().astype("u2"))
    lps = np.diag([-1.0, -1, 1, 1]) @ volume.ijk_to_ras
    labels.SetOrigin(lps[:3, 3].tolist())
    labels.SetSpacing((step * volume.spacing_mm).tolist())
    labels.SetDirection((lps[:3, :3] / volume.spacing_mm).ravel().tolist())
    sitk.WriteImage(labels, str(path))
    return path


def test_masks_decide_where_keypoints_lie(files, tmp_path, monkeypatch):
    """Label volumes on coarser grids; the work is done for real."""
    volumes = {name: Volume.read(files / f"{name}.nii.gz") for name in ("mri", "ius")}
    arguments = ["register", "--model", files / "model.pt", "--output", tmp_path / "out.tfm"]
    for name, volume in volumes.items():
        half = torch.arange(volume.shape[1])[:, None] < volume.shape[1] // 2
        mask = mask_file(tmp_path / f"{name}.nrrd", volume, half.expand(volume.shape))
        arguments += [f"--{name}", files / f"{name}.nii.gz", f"--{name}-mask", mask]
    results = []

    work = pipeline.register

    def spy(*pair, **options):
        results.append(work(*pair, **options))
        return results[-1]

    monkeypatch.setattr(pipeline, "register", spy)
    assert cli.main([str(a) for a in arguments]) in (0, 3)
    (found,) = results
    for volume, described in ((volumes["mri"], found.fixed), (volumes["ius"], found.moving)):
        j = transform.apply(transform.invert(volume.ijk_to_ras), described.points)[:, 1]
        assert len(j) > 20
        assert float(j.max()) < volume.shape[1] // 2 + 1


@pytest.mark.parametrize("image", ["mri", "ius"])
def test_masks_that_cannot_be_used(files, tmp_path, tmp_path_factory, capsys, image):
    volume = Volume.read(files / f"{image}.nii.gz")
    masks = tmp_path_factory.mktemp("masks")
    all_of_it = torch.ones(volume.shape, dtype=torch.bool)
    empty = mask_file(masks / "empty.nrrd", volume, ~all_of_it)
    away = mask_file(masks / "away.nrrd", volume.moved(np.eye(4) + 900 * np.eye(4, k=3)), all_of_it)
    bad = masks / "bad.nrrd"
    bad.write_text("no image")
    what = {"mri": "MRI", "ius": "ultrasound"}[image]
    for path, words in (
        (masks / "none.nrrd", "none.nrrd: no such file or folder"),
        (bad, "bad.nrrd: "),
        (empty, "empty.nrrd: the mask is empty: no voxel is above zero"),
        (away, f"the mask of the {what} does not lie on it; give one in the same world"),
    ):
        given = ["--mri", files / "mri.nii.gz", "--ius", files / "ius.nii.gz"]
        given += ["--model", files / "model.pt", "--output", tmp_path / "out.tfm"]
        line = refused(capsys, "register", *given, f"--{image}-mask", path)
        assert words in line
        assert list(tmp_path.iterdir()) == []


def test_a_failed_figure_leaves_nothing(registering, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    line = refused(capsys, "register", *registering(outcome()))
    assert "disk is full" in line
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_checked_before_the_work(registering, tmp_path, monkeypatch, capsys):
    arguments = registering(outcome())
    monkeypatch.setattr(
        "CrossKEYLib.registration.pipeline.register", lambda *a, **k: pytest.fail("worked")
    )
    base = ["register", *arguments]
    for option, value, message in [
        ("--output", tmp_path / "none" / "a.tfm", "folder does not exist"),
        ("--output", tmp_path / "a.nii", "ending in .tfm"),
        ("--report", tmp_path / "a.txt", "ending in .json"),
        ("--report", tmp_path / "none" / "a.json", "folder does not exist"),
        ("--initial", tmp_path / "none.tfm", "no such transform file"),
        ("--model", tmp_path / "none.pt", "none.pt"),
        ("--mri", tmp_path / "none.nii", "no such file"),
        ("--device", "abacus", "not available"),
        ("--transform", "elastic", "elastic"),
        ("--seed", "-1", "--seed"),
    ]:
        assert message in refused(capsys, *base, option, value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["register"], ["bogus"], ["demo", "--colour"]])
def test_wrong_usage(capsys, arguments):
    assert refused(capsys, *arguments).endswith("See crosskey --help.")


def test_internal_error_is_one_line_and_says_how_to_learn_more(registering, monkeypatch, capsys):
    arguments = [str(a) for a in registering(outcome())]

    def fail(*arguments, **options):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("CrossKEYLib.registration.pipeline.register", fail)
    assert cli.main(["register", *arguments]) == 1
    complained = capsys.readouterr().err
    assert complained.count("\n") == 1
    assert "internal error (RuntimeError: shapes differ); set CROSSKEY_DEBUG=1" in complained
    monkeypatch.setenv("CROSSKEY_DEBUG", "1")
    assert cli.main(["register", *arguments]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["--transform", "--report"])
def test_evaluate(files, tmp_path, capsys, source):
    path = files / "truth.tfm"
    if source == "--report":
        path = tmp_path / "out.json"
        path.write_text(json.dumps(outcome().report()))
    base = ["evaluate", source, str(path), "--landmarks", str(files / "pairs.csv")]
    assert cli.main([*base, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = np.loadtxt(files / "pairs.csv", delimiter=",")
    start = np.linalg.norm(rows[:, :3] - rows[:, 3:], axis=1)
    assert figures["n_landmarks"] == 3
    assert figures["before_mm"]["per_landmark"] == pytest.approx(start.tolist(), abs=2e-3)
    assert figures["before_mm"]["median"] == pytest.approx(np.median(start), abs=2e-3)
    assert figures["before_mm"]["max"] == pytest.approx(start.max(), abs=2e-3)
    assert figures["after_mm"]["mean"] == pytest.approx(0, abs=1e-3)
    assert cli.main([*base, "--initial", str(files / "truth.tfm")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split() == ["mean", "0.00", "0.00"]


def test_evaluate_turns_away(files, tmp_path, capsys):
    base = ["evaluate", "--landmarks", files / "pairs.csv"]
    assert "either --report or --transform" in refused(capsys, *base)
    report = tmp_path / "out.json"
    for text, message in [
        ("{", "not a report"),
        ("[]", "not a report"),
        ('{"matrix_ras": [[1]]}', "not a finite 4x4"),
        (json.dumps(outcome(False, False).report()), "found no transform"),
    ]:
        report.write_text(text)
        assert message in refused(capsys, *base, "--report", report)


def test_keypoints(tmp_path, capsys):
    texture(40).write(tmp_path / "v.nrrd")
    output = tmp_path / "p.mrk.json"
    given = ["keypoints", "--image", str(tmp_path / "v.nrrd"), "--output", str(output)]
    assert cli.main([*given, "--json"]) == 0
    points, _ = read_markups(output)
    assert json.loads(capsys.readouterr().out)["n_keypoints"] == len(points)
    found = detect(rescaled(Volume.read(tmp_path / "v.nrrd")))
    assert len(found) > 0
    torch.testing.assert_close(points, found.points, rtol=0, atol=1e-4)
    assert "ending in .mrk.json" in refused(capsys, *given[:3], "--output", tmp_path / "p.json")


def test_synthesize(files, tmp_path, capsys):
    given = ["synthesize", "--mri", str(files / "mri.nii.gz"), "--count", "2", "--spacing", "2"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["--seed", str(seed), "--output", str(tmp_path / name)]
        assert cli.main([*given, *options]) == 0
    assert "2 volumes" in capsys.readouterr().out
    first, same, other = (
        Volume.read(tmp_path / name / "synthetic_001.nii.gz") for name in ("a", "b", "c")
    )
    torch.testing.assert_close(first.array, same.array, rtol=0, atol=0)
    assert first.shape != other.shape or not torch.equal(first.array, other.array)
    assert first.spacing_mm == pytest.approx([2, 2, 2], abs=1e-4)
    mri = Volume.read(files / "mri.nii.gz")
    inside = first.points_ras((first.array > 0).nonzero())
    assert np.linalg.norm(inside.mean(0).numpy() - mri.centre_ras) < 40
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.fixture(scope="module")
def universal(tmp_path_factory):
    """Two images, points in the first, and an embedding to find them with."""
    folder = tmp_path_factory.mktemp("universal")
    settled_model().save(folder / "uae.pt")
    image = texture(56, grain=2.5)
    image.write(folder / "a.nii.gz")
    image.moved(transform.from_parts(np.eye(3), [8.0, -16.0, 8.0])).write(folder / "b.nii.gz")
    points = image.points_ras(torch.tensor([[28.0, 20.0, 30.0], [24.0, 36.0, 22.0]]))
    write_markups(points, folder / "a.mrk.json", ["AC", "PC"])
    return folder


def test_landmark(universal, tmp_path, capsys):
    output = tmp_path / "b.mrk.json"
    given = ["landmark", "--from", universal / "a.nii.gz", "--to", universal / "b.nii.gz"]
    given += ["--points", universal / "a.mrk.json", "--model", universal / "uae.pt"]
    given = [*map(str, given), "--output", str(output)]
    assert cli.main(given) == 0
    said, complained = capsys.readouterr()
    assert complained == ""
    assert "2 points in" in said
    before, _ = read_markups(universal / "a.mrk.json")
    after, labels = read_markups(output)
    assert labels == ["AC", "PC"]
    shift = after - before - torch.tensor([8.0, -16.0, 8.0])
    assert shift.norm(dim=1).max() < 1.5
    controls = json.loads(output.read_text())["markups"][0]["controlPoints"]
    assert all("similarity 0." in c["description"] or "1.00" in c["description"] for c in controls)
    assert cli.main([*given, "--method", "nearest", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [point["label"] for point in figures["points"]] == ["AC", "PC"]
    assert figures["model"] == "settled"
    assert all(point["found"] in ("good", "check", "absent") for point in figures["points"])
    np.testing.assert_allclose(np.array(figures["pose"]["matrix_ras"])[:3, 3], [-8, 16, -8], atol=4)
    found, _ = read_markups(output)
    np.testing.assert_allclose(figures["points"][0]["position_ras_mm"], found[0], atol=2e-3)


def test_landmark_turns_away(universal, files, tmp_path, capsys):
    far = tmp_path / "far.mrk.json"
    write_markups(torch.tensor([[0.0, 0.0, 900.0]]), far)
    base = ["landmark", "--from", universal / "a.nii.gz", "--to", universal / "b.nii.gz"]
    base += ["--points", universal / "a.mrk.json", "--model", universal / "uae.pt"]
    base += ["--output", tmp_path / "b.mrk.json"]
    for option, value, message in [
        ("--from", tmp_path / "none.nii", "no such file"),
        ("--to", tmp_path / "none.nii", "no such file"),
        ("--points", tmp_path / "none.mrk.json", "no such file"),
        ("--points", far, "lies outside"),
        ("--model", files / "model.pt", "expected a universal embedding"),
        ("--output", tmp_path / "b.csv", "ending in .mrk.json"),
        ("--output", tmp_path / "none" / "b.mrk.json", "folder does not exist"),
        ("--method", "guess", "guess"),
    ]:
        assert message in refused(capsys, *base, option, value)
    assert [p.name for p in tmp_path.iterdir()] == ["far.mrk.json"]


def test_prepare(files, tmp_path, monkeypatch, capsys):
    """Arguments reach the library; the checkpoint goes once the model is there."""
    seen = {}

    def fake(mri, **options):
        seen.update(options, mri=len(mri), synthetic=len(options["synthetic"]))
        options["checkpoint"].write_text("so far")
        return Model(small_encoder().eval(), options["name"], history={"steps": 5})

    monkeypatch.setattr("CrossKEYLib.training.patient.prepare.prepare", fake)
    ready = tmp_path / "ready"
    ready.mkdir()
    pair()[1].write(ready / "s.nii.gz")
    given = ["prepare", "--mri", files / "mri.nii.gz", "--mri", files / "mri.nii.gz"]
    given += ["--synthetic-us", ready, "--minutes", "0.5", "--seed", "4"]
    output = tmp_path / "p.pt"
    assert cli.main([*map(str, given), "--output", str(output), "--device", "cpu"]) == 0
    assert "steps 5" in capsys.readouterr().out
    assert (seen["mri"], seen["synthetic"], seen["minutes"], seen["seed"]) == (2, 1, 0.5, 4)
    assert Model.load(output).name == "p"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.pt", "ready"]
    (ready / "s.nii.gz").unlink()
    assert "holds no volumes" in refused(capsys, *given, "--output", output)


def test_write_markups_serves_evaluate(files, tmp_path, capsys):
    """Landmarks placed in Slicer, one list for each image."""
    rows = torch.from_numpy(np.loadtxt(files / "pairs.csv", delimiter=",")).float()
    lists = [tmp_path / "mri.mrk.json", tmp_path / "ius.mrk.json"]
    for path, points in zip(lists, (rows[:, :3], rows[:, 3:]), strict=True):
        write_markups(points, path)
    given = ["evaluate", "--transform", files / "truth.tfm", "--json"]
    for path in lists:
        given += ["--landmarks", path]
    assert cli.main([str(a) for a in given]) == 0
    assert json.loads(capsys.readouterr().out)["after_mm"]["max"] < 2e-3


def test_the_public_names_are_eight_and_load_torch_only_when_used():
    code = (
        "import sys, CrossKEYLib as ck; assert 'torch' not in sys.modules;"
        "missing = [n for n in ck.__all__ if getattr(ck, n, None) is None];"
        "assert not missing, missing; assert len(set(ck.__all__) - {'__version__'}) == 8"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 0, done.stderr
