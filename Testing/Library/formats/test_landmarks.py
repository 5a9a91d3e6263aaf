from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from CrossKEYLib.errors import InputError, InputWarning
from CrossKEYLib.formats.landmarks import read_landmark_pairs, read_markups, write_markups
from CrossKEYLib.keypoints.keypoints import Keypoints

MRI = torch.tensor([[1.5, -2.25, 3.0], [40.125, 5.0, -6.5], [-7.0, 8.0, 90.0]])
IUS = MRI + torch.tensor([2.0, -1.0, 0.5])
CASE24 = Path(__file__).parents[4] / "shared/data/resect/case24/Case24-MRI-beforeUS.tag"

TAG = """MNI Tag Point File
Volumes = 2;
% a comment

Points =
 1.5 -2.25 3.0 3.5 -3.25 3.5 ""
 40.125 5 -6.5 42.125 4 -6 1.0 -1 -1 "with weight"
 -7 8 9e1 -5 7 90.5 "last";
"""


def refused(paths) -> str:
    with pytest.raises(InputError) as caught:
        read_landmark_pairs(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_pairs(paths) -> None:
    mri, ius = read_landmark_pairs(paths)
    assert mri.dtype == ius.dtype == torch.float32
    assert torch.equal(mri, MRI)
    assert torch.equal(ius, IUS)


def test_tag(tmp_path):
    path = tmp_path / "p.tag"
    path.write_text(TAG)
    check_pairs(path)
    check_pairs([str(path)])


@pytest.mark.skipif(not CASE24.exists(), reason="RESECT Case 24 is not on this machine")
def test_case24_starts_as_published():
    mri, ius = read_landmark_pairs(CASE24)
    assert mri.shape == ius.shape == (16, 3)
    assert (mri - ius).norm(dim=1).mean().item() == pytest.approx(1.10, abs=0.005)


@pytest.mark.parametrize("header", ["", "r,a,s,r2,a2,s2\n", "\ufeffx,y,z,x,y,z\n# comment\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(tmp_path, header, separator):
    rows = [separator.join(f"{x:g}" for x in row) for row in torch.cat([MRI, IUS], 1).tolist()]
    path = tmp_path / "p.csv"
    path.write_text(header.replace(",", separator) + "\n".join(rows) + "\n\n", encoding="utf-8")
    check_pairs(path)


def test_two_markups_files_pair_by_label_else_by_order(tmp_path):
    a, b = tmp_path / "mri.mrk.json", tmp_path / "ius.mrk.json"
    write_markups(MRI, a, labels=["x", "y", "z"])
    write_markups(IUS[[2, 0, 1]], b, labels=["z", "x", "y"])
    check_pairs([a, b])
    write_markups(IUS, b, labels=["F-1", "F-2", "F-3"])
    check_pairs([a, b])


def test_one_markups_file_with_two_lists(tmp_path):
    a, b = tmp_path / "mri.mrk.json", tmp_path / "ius.mrk.json"
    write_markups(MRI, a)
    write_markups(IUS, b)
    lists = [json.loads(p.read_text())["markups"][0] for p in (a, b)]
    a.write_text(json.dumps({"markups": lists}))
    check_pairs(a)
    a.write_text(json.dumps({"markups": lists[:1]}))
    assert "expected two point lists, got 1" in refused(a)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.tag", "nothing", "not an MNI tag file"),
        ("p.tag", TAG.replace("= 2", "= 1"), "expected points of two volumes"),
        ("p.tag", TAG.replace("-7 8", "-7"), "line 8: expected six numbers"),
        ("p.tag", TAG.replace("-7 8", "-7 nan"), "line 8: expected six numbers"),
        ("p.csv", "1,2,3,4,5,6\n1,2,3,4,5\n", "line 2: expected six numbers"),
        ("p.csv", "1,2,3,4,5,6\n1,2,3,4,5,inf\n", "line 2: expected six numbers"),
        ("p.csv", "x,y,z,x,y,z\n", "holds no landmark pairs"),
        ("p.csv", "", "holds no landmark pairs"),
        ("p.mrk.json", "{", "not a Slicer markups file"),
        ("p.mrk.json", "[]", "not a Slicer markups file"),
        ("p.mrk.json", '{"markups": []}', "not a Slicer markups file"),
        ("p.txt", "1 2 3", "expected .tag, .csv"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    assert message in refused(tmp_path / name)


def test_missing_file_and_unequal_lists(tmp_path):
    assert "no such file" in refused(tmp_path / "p.tag")
    assert "expected .tag, .csv" in refused([])
    a, b = tmp_path / "a.mrk.json", tmp_path / "b.mrk.json"
    write_markups(MRI, a)
    write_markups(IUS[:2], b)
    assert "2 iUS points for 3 MRI points" in refused([a, b])
    for bad in ([1, 2], [1, 2, None], "text"):
        points = [{"position": bad}]
        markup = {"coordinateSystem": "RAS", "controlPoints": points}
        a.write_text(json.dumps({"markups": [markup]}))
        assert "holds no readable points" in refused([a, a])


def test_keypoints_reach_slicer(tmp_path, mrml):
    path = tmp_path / "é.mrk.json"
    count = len(MRI)
    keypoints = Keypoints(
        MRI, torch.full((count,), 2.5), torch.linspace(1, 0.5, count), torch.eye(3).repeat(3, 1, 1)
    )
    write_markups(keypoints, path, colour=(1.0, 0.0, 0.0), size_mm=1.5)
    scene = mrml.vtkMRMLScene()
    logic = mrml.vtkSlicerMarkupsLogic()
    logic.SetMRMLScene(scene)
    node = scene.GetNodeByID(logic.LoadMarkups(str(path), "keypoints"))
    for n in range(count):
        assert node.GetNthControlPointPosition(n) == pytest.approx(MRI[n].tolist(), abs=1e-5)
    assert node.GetNumberOfControlPoints() == count
    assert node.GetLocked()
    assert node.GetNthControlPointDescription(2) == "scale 2.50 mm, score 0.5"
    assert node.GetDisplayNode().GetGlyphSize() == pytest.approx(1.5)
    assert node.GetDisplayNode().GetSelectedColor() == pytest.approx((1, 0, 0))


def test_markups_by_slicer(tmp_path, mrml):
    """Slicer writes LPS; a point that was never placed does not count."""
    scene = mrml.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.CreateDefaultDisplayNodes()
    for n, point in enumerate(MRI.tolist()):
        node.AddControlPoint(*point, f"p{n}")
    node.AddControlPoint(1, 2, 3, "removed")
    node.UnsetNthControlPointPosition(3)
    storage = mrml.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(tmp_path / "s.mrk.json"))
    assert storage.WriteData(node)
    assert '"LPS"' in (tmp_path / "s.mrk.json").read_text()
    points, labels = read_markups(tmp_path / "s.mrk.json")
    torch.testing.assert_close(points, MRI)
    assert labels == ["p0", "p1", "p2"]


def test_bad_markups_are_not_written(tmp_path):
    with pytest.raises(InputError, match=r"ending in \.mrk\.json"):
        write_markups(MRI, tmp_path / "a.json")
    with pytest.raises(InputError, match="NaN or infinite"):
        write_markups(MRI * torch.nan, tmp_path / "a.mrk.json")
    assert not list(tmp_path.iterdir())


ROWS = torch.cat([MRI, IUS], 1)


def table(path: Path, header: str, columns: list[int], signs: tuple[int, ...] = (1,) * 6) -> Path:
    """Pairs with their columns in another order and with other signs."""
    rows = (ROWS * torch.tensor(signs))[:, columns].tolist()
    text = "\n".join([header, *(",".join(f"{x:.9g}" for x in row) for row in rows)])
    path.write_text(text + "\n")
    return path


@pytest.mark.parametrize(
    ("header", "columns", "signs"),
    [
        ("mri_r,mri_a,mri_s,ius_r,ius_a,ius_s", [0, 1, 2, 3, 4, 5], (1,) * 6),
        ("us_x,us_y,us_z,mri_x,mri_y,mri_z", [3, 4, 5, 0, 1, 2], (1,) * 6),
        ("usX,usY,usZ,mrX,mrY,mrZ", [3, 4, 5, 0, 1, 2], (1,) * 6),
        ("x_moving,x_fixed,y_moving,y_fixed,z_moving,z_fixed", [3, 0, 4, 1, 5, 2], (1,) * 6),
        ("mri_l,mri_p,mri_s,ius_l,ius_p,ius_s", [0, 1, 2, 3, 4, 5], (-1, -1, 1) * 2),
        (
            "MRI X (LPS),MRI Y (LPS),MRI Z (LPS),US R,US A,US S",
            [0, 1, 2, 3, 4, 5],
            (-1, -1, 1, 1, 1, 1),
        ),
        ("s,a,r,s,a,r", [2, 1, 0, 5, 4, 3], (1,) * 6),
        ("# CoordinateSystem = LPS\nx,y,z,x.1,y.1,z.1", [0, 1, 2, 3, 4, 5], (-1, -1, 1) * 2),
        ("# CoordinateSystem = LPS", [0, 1, 2, 3, 4, 5], (-1, -1, 1) * 2),
        ("landmark_x,landmark_y,landmark_z,us_x,us_y,us_z", [0, 1, 2, 3, 4, 5], (1,) * 6),
    ],
)
def test_headers_are_honoured(tmp_path, header, columns, signs):
    check_pairs(table(tmp_path / "p.csv", header, columns, signs))


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("mri_x,mri_y,mri_z,mri_x,mri_y,mri_z", "6 columns of the MRI and 0 of the ultrasound"),
        (
            "mri_x,mri_x,mri_z,us_x,us_y,us_z",
            "its header names no three axes (mri_x, mri_x, mri_z)",
        ),
        ("mri_r,mri_l,mri_s,us_x,us_y,us_z", "no three axes"),
        ("mri_r_lps,mri_a,mri_s,us_x,us_y,us_z", "contradicts itself (r in lps)"),
        ("mri_x,mri_y,us_x,us_y,name,label", "names 4 columns of coordinates"),
        ("# CoordinateSystem = IJK\nx,y,z,x,y,z", "expected RAS or LPS, got coordinate system IJK"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path, header, text):
    assert text in refused(table(tmp_path / "p.csv", header, list(range(6))))


def test_a_header_that_is_not_understood_is_told(tmp_path):
    path = table(tmp_path / "p.csv", "alpha,beta,gamma,delta,epsilon,zeta", list(range(6)))
    with pytest.warns(InputWarning, match=r"not understood \(alpha, beta.* MRI R A S, iUS R A S"):
        check_pairs(path)


def test_labels_and_decimal_commas(tmp_path):
    path = tmp_path / "p.csv"
    rows = [["name;mri x;mri y;mri z;us x;us y;us z"]]
    rows += [[f'"left; one";{";".join(f"{x:g}" for x in row)}'] for row in ROWS.tolist()]
    path.write_text("\n".join(row[0] for row in rows).replace(".", ","))
    check_pairs(path)


@pytest.mark.parametrize("header", ["", "mri_r;mri_a;mri_s;ius_r;ius_a;ius_s\n"])
def test_decimal_commas_outnumber_the_semicolons(tmp_path, header):
    path = tmp_path / "p.csv"
    rows = [";".join(f"{x:.3f}" for x in row) for row in ROWS.tolist()]
    path.write_text(header + "\n".join(rows).replace(".", ","))
    check_pairs(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_tables_as_spreadsheets_encode_them(tmp_path, encoding):
    path = table(tmp_path / "p.csv", "mri_r,mri_a,mri_s,ius_r,ius_a,ius_s", list(range(6)))
    path.write_bytes(path.read_text().replace(",", "\t").replace("\n", "\r\n").encode(encoding))
    check_pairs(path)


def test_semicolons_and_comments_in_the_names_of_a_tag_file(tmp_path):
    path = tmp_path / "p.tag"
    path.write_text(TAG.replace('3.5 ""', '3.5 "sulcus; left 50 % in"'))
    check_pairs(path)


FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = {system}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
"""


@pytest.mark.parametrize(("system", "signs"), [("0", 1), ("RAS", 1), ("1", -1), ("LPS", -1)])
def test_fcsv(tmp_path, system, signs):
    files = []
    for name, points, order in (("mri", MRI, [0, 1, 2]), ("ius", IUS, [2, 0, 1])):
        rows = [
            f'{n},{signs * r:.9g},{signs * a:.9g},{s:.9g},0,0,0,1,1,1,0,"P, {n}",,vtk'
            for n, (r, a, s) in zip(order, points[order].tolist(), strict=True)
        ]
        files.append(tmp_path / f"{name}.fcsv")
        files[-1].write_text(FCSV.format(system=system) + "\n".join(rows) + "\n")
    check_pairs(files)
    points, labels = read_markups(files[0])
    assert torch.equal(points, MRI)
    assert labels == ["P, 0", "P, 1", "P, 2"]
    files[0].write_text(files[0].read_text().replace(f"= {system}\n", "= 2\n"))
    assert "got coordinate system 2" in refused(files)


@pytest.mark.parametrize(("axes", "signs"), [("r,a,s", 1), ("l,p,s", -1)])
def test_table_of_slicers_markups_module(tmp_path, axes, signs):
    header = f"label,{axes},defined,selected,visible,locked,description"
    files = []
    for name, points in (("mri", MRI), ("ius", IUS)):
        rows = [
            f"F-{n},{signs * r:.9g},{signs * a:.9g},{s:.9g},1,1,1,0,"
            for n, (r, a, s) in enumerate(points.tolist())
        ]
        rows.insert(1, "F-9,0,0,0,0,1,1,0,never placed")
        files.append(tmp_path / f"{name}.csv")
        files[-1].write_text("\n".join([header, *rows]) + "\n")
    check_pairs(files)
    assert "points of one image; give two files, MRI first" in refused(files[0])
    files[1].unlink()
    write_markups(IUS, files[1].with_suffix(".mrk.json"))
    check_pairs([files[0], files[1].with_suffix(".mrk.json")])
