"""The benchmark: what it plans, that nothing done is lost or done twice, what its tables count."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.heads import CENTRE, DATA, block_anatomy, grid_around, mottled, sheet
from phantoms.registered import TRUTH, pair
from phantoms.training import small_encoder

from CrossKEYLib import cli
from CrossKEYLib.errors import InputError
from CrossKEYLib.estimation.target_error import landmark_fit, target_errors
from CrossKEYLib.evaluation import benchmark_figure, benchmark_tables
from CrossKEYLib.evaluation.benchmark import Trial, attempt, plan, run
from CrossKEYLib.evaluation.cases import (
    FOREIGN,
    REAL,
    SIMULATED,
    Case,
    Images,
    absent_cases,
    deformed_cases,
    find_case,
    foreign_cases,
    mirrored,
    mirrored_cases,
    real_cases,
    simulated,
    simulated_cases,
    without_its_side,
)
from CrossKEYLib.evaluation.misplacements import start_of
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.patient import Model
from CrossKEYLib.runtime.resources import resource

TARGETS = torch.tensor([[0.0, 30.0, 60.0], [5.0, 35.0, 65.0], [-5.0, 40.0, 55.0]])


def images() -> Images:
    mri, ius = pair()
    return Images(mri, ius, transform.apply(TRUTH, TARGETS), TARGETS)


def case(kind: str = REAL, mri: str = "mri.nii.gz") -> Case:
    return Case(kind, mri, "ius.nii.gz", images)


def test_plan_gives_every_method_the_same_starts():
    cases = [case(), case(FOREIGN), case(FOREIGN, "other.nii.gz"), case(FOREIGN)]
    trials = plan(cases, ["crosskey", "mi"], ["0 / 0", "30 / 30"], 2)
    own = [t for t in trials if t.case.kind == REAL]
    assert [(t.seed, t.level, t.method) for t in own] == [
        (seed, level, method)
        for seed in (0, 1)
        for level in ("0 / 0", "30 / 30")
        for method in ("crosskey", "mi")
    ]
    strangers = [t for t in trials if t.case.kind == FOREIGN]
    assert [(t.case.mri, t.method, t.level, t.seed) for t in strangers] == [
        ("mri.nii.gz", "crosskey", "0 / 0", 0),
        ("mri.nii.gz", "crosskey", "0 / 0", 1),
        ("other.nii.gz", "crosskey", "0 / 0", 0),
    ]


def test_error_is_measured_against_the_misplaced_landmarks():
    """LC2 finds the same texture again, from where its start lies."""
    done = attempt(Trial(case(), "lc2", "5 / 5", 3), images(), None)
    start = start_of("5 / 5", 3, pair()[1].centre_ras)
    moved, fixed = transform.apply(start, TARGETS), transform.apply(TRUTH, TARGETS)
    assert done["start_tre_mm"] == pytest.approx(float((moved - fixed).norm(dim=1).mean()))
    assert np.allclose(done["matrix_ras"], TRUTH @ transform.invert(start), atol=0.1)
    left = transform.apply(np.array(done["matrix_ras"]), moved) - fixed
    assert done["tre_mm"] == pytest.approx(float(left.norm(dim=1).mean()), abs=1e-4)
    assert done["tre_mm"] < 0.1
    assert done["floor_mm"] == pytest.approx(0, abs=1e-3)


def test_a_method_that_gives_up_has_failed_with_its_reason():
    apart = replace(images(), ius=pair()[1].moved(transform.from_parts(np.eye(3), [80.0, 0, 0])))
    lost = attempt(Trial(case(), "mi", "0 / 0", 0), apart, None)
    assert lost["tre_mm"] is None
    assert lost["matrix_ras"] is None
    assert "do not sufficiently overlap" in lost["failure"]


def test_our_own_outcome_on_the_sample_carries_its_trust():
    """The bundled case with its own model: right, accepted, and with an expected error."""
    mri, ius = (Volume.read(resource(f"SampleData/{name}.nii.gz")) for name in ("MRI", "iUS"))
    model = Model.load(resource("Models/demo-patient.pt"))
    pairs = read_landmark_pairs([resource("SampleData/landmarks.csv")])
    done = attempt(Trial(case(), "crosskey", "5 / 5", 0), Images(mri, ius, *pairs), model)
    assert done["start_tre_mm"] > 10
    assert done["tre_mm"] < 1.5
    assert done["predicted_tre_mm"] < 3
    assert (done["accepted"], done["verdict"], done["reasons"]) == (True, "accepted", [])
    assert done["precision"] > 0.9  # of the matches that the report lists
    assert 0.9 * done["n_inliers"] < done["matching_score"] * done["n_keypoints_ius"]
    assert done["matching_score"] * done["n_keypoints_ius"] <= done["n_matches"]


def test_an_interrupted_run_goes_on(tmp_path):
    file = tmp_path / "outcomes.json"
    trials = plan([case()], ["mi"], ["0 / 0", "5 / 5"], 3)
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trials, file, report=stop)
    begun = json.loads(file.read_text())["outcomes"]
    assert len(begun) == 4
    outcomes = run(trials, file, report=lines.append)
    assert len(lines) == 6  # what was done is not done again
    assert outcomes[:4] == begun
    assert [(o["level"], o["seed"]) for o in outcomes] == [(t.level, t.seed) for t in trials]
    assert run(trials, file, report=lines.append) == outcomes
    assert len(lines) == 6
    assert f"TRE {outcomes[0]['tre_mm']:.2f} mm" in lines[0]


def test_outcomes_of_other_settings_are_not_mixed(tmp_path):
    untrained = Model(small_encoder().eval(), "small")
    file = tmp_path / "outcomes.json"
    trials = plan([case()], ["crosskey", "mi"], ["0 / 0"], 1)
    run(trials, file, untrained)
    with pytest.raises(InputError, match="outcomes of crosskey with other settings"):
        run(trials, file, Model(small_encoder(1).eval(), "small"))
    saved = json.loads(file.read_text())
    saved["settings"]["mi"]["bins"] += 1  # as a version with another default wrote it
    file.write_text(json.dumps(saved))
    with pytest.raises(InputError, match="outcomes of mi with other settings"):
        run(trials, file, untrained)
    for text in ("", "[]", '{"settings": {}, "outcomes": [{"kind": "real"}]}'):
        file.write_text(text)
        with pytest.raises(InputError, match="not the outcomes of a benchmark"):
            run(trials[1:], file)


def test_a_case_is_found_by_the_names_of_its_files(tmp_path):
    for name in ("P1_US_before.nii.gz", "P1_T1_in_USgrid.nii.gz", "P1_FLAIR.nii", "pairs.tag"):
        (tmp_path / name).touch()
    mri, ius, landmarks = find_case(tmp_path)
    assert [path.name for path in mri] == ["P1_FLAIR.nii", "P1_T1_in_USgrid.nii.gz"]
    assert ius.name == "P1_US_before.nii.gz"
    assert [path.name for path in landmarks] == ["pairs.tag"]
    (tmp_path / "second-iUS.nrrd").touch()
    with pytest.raises(InputError, match="found 2, 2 and 1; give --mri, --ius and --landmarks"):
        find_case(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_case(tmp_path / "none")


def test_foreign_cases_pair_everything(tmp_path):
    mri, ius = ([tmp_path / f"{s}{n}.nii.gz" for n in (1, 2)] for s in ("mri", "us"))
    names = [(c.mri, c.ius) for c in foreign_cases(mri, ius)]
    assert names == [(a.name, b.name) for a in mri for b in ius]


def test_files_that_are_called_alike_are_told_apart(tmp_path):
    """T1.nii.gz of two patients; under one name the second would count as done."""
    mri = [tmp_path / patient / "T1.nii.gz" for patient in ("p1", "p2")]
    cases = foreign_cases(mri, [tmp_path / "us.nii.gz"])
    assert [(c.mri, c.ius) for c in cases] == [
        ("p1/T1.nii.gz", "us.nii.gz"),
        ("p2/T1.nii.gz", "us.nii.gz"),
    ]


def test_an_emptied_side_shows_nothing_of_the_ultrasound(tmp_path):
    mri, ius = pair()
    corner = (ius.array > 0) & (torch.arange(ius.shape[2]) > 0.6 * ius.shape[2])
    aside = Images(mri, ius.moved(TRUTH).replaced(ius.array * corner), TARGETS, TARGETS)
    left = without_its_side(aside)
    assert left.targets_fixed is None
    assert left.targets_moving is None
    shown = aside.ius.points_ras(corner.nonzero().float())
    assert mri.sample(shown).mean() > 0.1
    assert left.mri.sample(shown).max() == 0
    assert 0.2 < float((left.mri.array > 0).float().mean()) < 0.7
    kept = left.mri.array > 0
    assert torch.equal(left.mri.array[kept], mri.array[kept])
    cases = absent_cases([tmp_path / "a.nii.gz"], 2)
    assert [(c.kind, c.ius) for c in cases] == [
        (FOREIGN, "site 0, emptied"),
        (FOREIGN, "site 1, emptied"),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_mirrored_mri_has_left_on_the_right(order):
    """Whatever the orientation of its grid, and nothing else changes."""
    axes = np.eye(3)[:, order] * [1, -1, 1]
    grid = grid_around(CENTRE, axes, 20)
    points = grid.points() - torch.tensor(CENTRE, dtype=torch.float32)
    spot = Volume(
        torch.exp(-(points - torch.tensor([4.0, 6.0, -3.0])).square().sum(-1) / 4), grid.ijk_to_ras
    )
    other = mirrored(spot)
    middle = torch.tensor(spot.centre_ras, dtype=torch.float32)
    brightest = spot.points_ras((spot.array == spot.array.amax()).nonzero().float())[0] - middle
    found = other.points_ras((other.array == other.array.amax()).nonzero().float())[0] - middle
    assert brightest[0] > 3
    assert torch.allclose(found, brightest * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-3)


def test_mirrored_cases_never_belong_together(tmp_path):
    cases = mirrored_cases([tmp_path / "a.nii.gz"], [tmp_path / "own_us.nii.gz"])
    assert [(c.kind, c.mri, c.ius) for c in cases] == [
        (FOREIGN, "a.nii.gz, mirrored", "own_us.nii.gz")
    ]
    texture = sheet(grid_around(CENTRE, np.eye(3), 20))
    texture.write(tmp_path / "a.nii.gz")
    texture.write(tmp_path / "own_us.nii.gz")
    images = cases[0].load()
    assert images.targets_fixed is None
    assert torch.equal(images.mri.array, texture.array.flip(2))


def test_simulated_pairs_have_an_exact_truth(tmp_path):
    """The ultrasound lies in the MRI's world; equal seeds give equal ones, sites differ."""
    grid = grid_around(CENTRE, np.eye(3), 60)
    mri = sheet(grid)
    anatomy = block_anatomy(mri)
    first, again, other = (
        simulated(mri, anatomy, seed, spacing_mm=1.5) for seed in ((0, 0), (0, 0), (0, 1))
    )
    assert torch.equal(first.ius.array, again.ius.array)
    assert first.ius.shape != other.ius.shape or not np.allclose(
        first.ius.ijk_to_ras, other.ius.ijk_to_ras
    )
    assert first.targets_moving is not None
    assert torch.equal(first.targets_fixed, first.targets_moving)
    assert (first.ius.sample(first.targets_moving, "nearest") > 0).all()
    away = np.abs(first.targets_moving.numpy() - CENTRE).max()
    assert away < 45
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    cases = simulated_cases(paths, 2)
    assert [(c.kind, c.mri, c.ius) for c in cases] == [
        (SIMULATED, path.name, f"site {n}") for path in paths for n in range(2)
    ]


def test_deformed_pairs_know_where_the_mri_has_each_target(tmp_path):
    """No rigid motion takes one set of targets to the other, and the floor tells by how much."""
    mri = sheet(grid_around(CENTRE, np.eye(3), 60))
    made = simulated(mri, block_anatomy(mri), (0, 0), spacing_mm=1.5, deformed=True)
    assert made.targets_fixed is not None
    assert made.targets_moving is not None
    apart = (made.targets_fixed - made.targets_moving).norm(dim=1)
    assert 0.5 < float(apart.mean()) < 12
    fit = landmark_fit(made.targets_fixed, made.targets_moving)
    floor = target_errors(fit, made.targets_fixed, made.targets_moving).mean()
    assert 0.1 < float(floor) < float(apart.mean())
    (case,) = deformed_cases([tmp_path / "a.nii.gz"], 1)
    assert (case.kind, case.mri, case.ius) == (SIMULATED, "a.nii.gz, deformed", "site 0")


def result(method: str, level: str, tre: float | None, **others: object) -> dict:
    values = {
        "kind": REAL,
        "mri": "mri.nii.gz",
        "ius": "ius.nii.gz",
        "method": method,
        "level": level,
        "seed": 0,
        "start_tre_mm": 6.0,
        "tre_mm": tre,
        "seconds": 5.0,
        "processor_seconds": 4.0,
    }
    return values | others


def own(tre: float | None, accepted: bool) -> dict:
    figures = {"precision": 0.5, "matching_score": 0.1, "confidence": 0.9 * accepted}
    return result("crosskey", "5 / 5", tre, accepted=accepted, predicted_tre_mm=2.0, **figures)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_tables_set_methods_side_by_side():
    outcomes = [result("mi", "5 / 5", 2.0), result("mi", "5 / 5", 5.0)]
    outcomes += [result("mi", "10 / 10", None), result("lc2", "5 / 5", 3.0)]
    assert [cells(row) for row in benchmark_tables.success(outcomes).splitlines()[2:]] == [
        ["mi", "1 of 2", "0 of 1"],
        ["lc2", "1 of 1", ""],
    ]
    assert [cells(row) for row in benchmark_tables.errors(outcomes).splitlines()[2:]] == [
        ["before", "6.0 / 6.0", "6.0 / 6.0"],
        ["mi", "3.5 / 3.5", "all failed"],
        ["lc2", "3.0 / 3.0", ""],
    ]
    assert cells(benchmark_tables.seconds(outcomes).splitlines()[3])[1] == "4.0 (5.0)"


def test_our_table_counts_refusals_and_wrong_acceptances():
    outcomes = [own(1.0, True), own(3.0, False), own(8.0, True), own(None, False)]
    row = cells(benchmark_tables.details(outcomes).splitlines()[2])
    assert row[0] == "5 / 5"
    assert row[2].startswith("4.00 ±")
    assert row[2].endswith("3.00 mm")
    assert row[3:] == ["2 of 4", "50 %", "10.0 %", "2", "1", "4.0"]


def test_the_table_of_foreign_pairs_counts_acceptances():
    def stranger(mri: str, confidence: float) -> dict:
        return {"mri": mri, "confidence": confidence, "accepted": confidence >= 0.5}

    outcomes = [stranger("a", 0.1), stranger("a", 0.3), stranger("a", 0.6), stranger("b", 0.0)]
    rows = benchmark_tables.foreign(outcomes).splitlines()[2:]
    assert rows == ["| a | 3 | 1 | 0.30 | 0.60 |", "| b | 1 | 0 | 0.00 | 0.00 |"]


def test_plots_show_every_outcome():
    outcomes = [own(0.1, True), own(2.0, True), own(8.0, False), result("mi", "5 / 5", 9.0)]
    outcomes.append(result("mi", "10 / 10", None))
    share, errors = benchmark_figure.capture(outcomes).axes
    points = {bars.get_label(): bars.lines[0].get_ydata() for bars in share.containers}
    np.testing.assert_allclose(np.asarray(points["crosskey"], float), [2 / 3])
    np.testing.assert_allclose(np.asarray(points["mi"], float), [0, 0])
    trust = benchmark_figure.calibration(outcomes).axes[1]
    for axes, count in ((errors, 4), (trust, 3)):
        low, high = axes.get_ylim()
        lines = [line for line in axes.lines if line.get_linestyle() == "None"]
        shown = np.concatenate([line.get_ydata() for line in lines])
        assert len(shown) == count
        assert ((shown > low) & (shown < high)).all()


@pytest.fixture
def files(tmp_path):
    """A case on disk."""
    folder = tmp_path / "case"
    folder.mkdir()
    mri, ius = pair()
    mri.write(folder / "P_T1.nii.gz")
    ius.write(folder / "P_US.nii.gz")
    rows = torch.cat([transform.apply(TRUTH, TARGETS), TARGETS], 1).tolist()
    (folder / "pairs.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    return folder


def test_command_leaves_outcomes_tables_and_plots(files, tmp_path, capsys):
    """LC2 is right on the same texture; an untrained model refuses every pair."""
    output = tmp_path / "out"
    model = tmp_path / "small.pt"
    Model(small_encoder().eval(), "small").save(model)
    noise = tmp_path / "other_US.nii.gz"
    Volume(mottled(grid_around(CENTRE, np.eye(3), 30)), np.eye(4)).write(noise)
    arguments = ["benchmark", "--case", files, "--methods", "crosskey,mi,lc2", "--seeds", "1"]
    arguments += ["--levels", "5/5", "--foreign", noise, "--model", model]
    arguments += ["--mirrored", files / "P_US.nii.gz"]
    arguments = [str(a) for a in [*arguments, "--output", output, "--device", "cpu"]]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    names = {path.name for path in output.iterdir()}
    assert names == {"outcomes.json", "tables.md", "capture.png", "calibration.png"}
    text = (output / "tables.md").read_text()
    assert text in said
    assert "| lc2 | 1 of 1 |" in text
    assert re.search(r"\| mi \| [01] of 1 \|", text)
    assert "| crosskey | all failed |" in text
    assert "| P_T1.nii.gz | 1 | 0 | 0.00 | 0.00 |" in text
    assert "| P_T1.nii.gz, mirrored | 1 | 0 | 0.00 | 0.00 |" in text
    done = (output / "outcomes.json").read_bytes()
    foreign = [o for o in json.loads(done)["outcomes"] if o["kind"] == FOREIGN]
    assert [(o["verdict"], o["tre_mm"]) for o in foreign] == [("refused", None)] * 2
    assert not any("precision" in o for o in foreign)  # nothing tells which matches are right
    assert cli.main(arguments) == 0  # nothing is left to do
    assert (output / "outcomes.json").read_bytes() == done


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--methods", "crosskey,magic"], "unknown 'magic'; choose from crosskey, mi"),
        (["--levels", "7/7"], "unknown '7/7'; choose from 0/0"),
        (["--mri", "a.nii.gz"], "give either --case or --mri"),
        (["--foreign", "missing.nii.gz"], "missing.nii.gz: no such file"),
        (["--mirrored", "missing.nii.gz"], "missing.nii.gz: no such file"),
    ],
)
def test_command_refuses_in_one_line(files, tmp_path, capsys, options, reason):
    arguments = ["benchmark", "--case", str(files), "--output", str(tmp_path / "out"), *options]
    assert cli.main(arguments) == 2
    said, complained = capsys.readouterr()
    assert said == ""
    assert complained.count("\n") == 1
    assert reason in complained
    assert not (tmp_path / "out").exists()


def test_command_needs_something_to_register(tmp_path, capsys):
    base = ["benchmark", "--output", str(tmp_path / "out")]
    assert cli.main(base) == 2
    assert "give --case FOLDER, or --mri" in capsys.readouterr().err
    mri = tmp_path / "mri.nii.gz"
    mri.touch()
    assert cli.main([*base, "--mri", str(mri)]) == 2
    assert "--simulate, --deformed, --absent, --foreign or --mirrored" in capsys.readouterr().err
    assert cli.main([*base, "--mri", str(mri), "--ius", str(mri)]) == 2
    assert "belong together" in capsys.readouterr().err


@pytest.mark.skipif(not DATA.is_dir(), reason="no real images of shared/data here")
def test_real_case_is_found_whole():
    folder = DATA / "resect" / "case24"
    cases = real_cases(*find_case(folder))
    assert [c.mri for c in cases] == [
        "Case24_FLAIR_in_USgrid.nii.gz",
        "Case24_T1_in_USgrid.nii.gz",
    ]
    loaded = cases[0].load()
    assert loaded.targets_fixed is not None
    assert len(loaded.targets_fixed) == 16
