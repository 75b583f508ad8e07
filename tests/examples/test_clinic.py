"""The clinic: its made table, its page's program with a model that the test knows, its rules in promtool."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from starlette.testclient import TestClient

from examples.clinic import data, measure
from examples.clinic.app import MOST_TEXT, Clinic, make_app
from examples.clinic.cases import LOOK, Cases, seen
from examples.clinic.run import HERE, recipe_of
from examples.stages import watch_files
from fuseline import FuselineError, load_recipe
from fuseline.lab.export.card import model_card

VISITS = 80
TOLD = {"what": "made", "finding": "finding", "severity": "went_icu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made clinic, and what a run would have left that the page reads."""
    folder = tmp_path_factory.mktemp("clinic")
    told = data.bring(folder / "data", None, visits=VISITS)
    assert "do not exist" in told["what"]
    run = folder / "runs" / "clinic"
    run.mkdir(parents=True)
    shutil.copyfile(recipe_of(folder, TOLD), run / "recipe.yaml")
    parts = ["train"] * 30 + ["val"] * 10 + ["test"] * 40
    pl.DataFrame({"row": range(VISITS), "part": parts}).filter(pl.col("part") != "train").write_parquet(
        run / "predictions.parquet"
    )
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "data" / data.TABLE, infer_schema_length=None)


def test_a_made_clinic_is_the_same_again(folder: Path, tmp_path: Path) -> None:
    data.bring(tmp_path, None, visits=VISITS)
    ours, again = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (folder / "data", tmp_path)
    )
    assert ours == again
    data.bring(tmp_path / "other", None, visits=VISITS, seed=1)
    assert (tmp_path / "other" / data.TABLE).read_bytes() != ours[Path(data.TABLE)]


def test_lungs_and_clouds_lie_where_the_boxes_say(folder: Path, table: pl.DataFrame) -> None:
    truth = pl.read_csv(folder / "data" / data.TRUTH)
    clouds = 0
    for row, name in enumerate(table["image"]):
        assert (name is None) == (table["boxes"][row] is None)
        if name is None:
            continue
        grey = np.asarray(Image.open(io.BytesIO(seen((folder / "data" / name).read_bytes()))).convert("L"), float)
        large = LOOK / data.SIDE
        right, left = (np.array(b["xyxy"]) * large for b in json.loads(table["boxes"][row]))
        assert right[0] < left[0], "the patient's right is on the picture's left"
        if truth["cloud"][row] is None:
            continue
        clouds += 1
        x1, y1, x2, y2 = (round(v * large) for v in json.loads(truth["cloud"][row]))
        middle = grey[(2 * y1 + y2) // 3 : (y1 + 2 * y2) // 3, (2 * x1 + x2) // 3 : (x1 + 2 * x2) // 3].mean()
        assert middle > grey.mean() + 30, f"no cloud in row {row}"
    assert clouds > 3


def test_some_pictures_are_dicom_and_read_alike(folder: Path, table: pl.DataFrame) -> None:
    names = [n for n in table["image"].drop_nulls() if n.endswith(".dcm")]
    assert names
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    png = io.BytesIO()
    Image.fromarray(ramp).save(png, "PNG")
    ours, theirs = (np.asarray(Image.open(io.BytesIO(seen(b))), int) for b in (data.dicom(ramp, 1), png.getvalue()))
    assert ours.shape == theirs.shape == (LOOK, LOOK, 3)
    assert np.abs(ours - theirs).max() <= 2


def test_what_is_told_follows_the_table() -> None:
    icu = ["Y", "N"] * 30 + [None] * 40
    survival: list[str | None] = ["Y"] * 95 + ["N"] * 5
    table = pl.DataFrame({"covid": ["yes", "no"] * 50, "went_icu": icu, "survival": survival})
    assert data.targets_of(table) == {"finding": "covid", "severity": "went_icu"}, "5 deaths teach nothing"
    with pytest.raises(FuselineError, match="has 8 rows of two values"):
        data.targets_of(table.drop("went_icu"))
    with pytest.raises(FuselineError, match="none of covid, finding"):
        data.targets_of(table.drop("covid"))


def test_only_pictures_inside_the_folder_are_taken(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    for name, code in (("../secret.png", "unsafe_path"), ("gone.png", "bad_cell")):
        pl.DataFrame({"image": [name], "finding": ["a"]}).write_csv(given / data.TABLE)
        with pytest.raises(FuselineError) as caught:
            data.bring(tmp_path / "out", given)
        assert caught.value.code == code
    with pytest.raises(FuselineError, match=r"holds no table\.csv"):
        data.bring(tmp_path / "out", tmp_path / "nowhere")
    with pytest.raises(FuselineError, match="teaches nothing"):
        data.bring(tmp_path / "out", None, visits=3)


def test_the_recipe_reads_what_the_table_has_and_says_what_it_is_not(folder: Path) -> None:
    recipe = load_recipe(folder / "clinic.yaml")
    assert set(recipe.inputs["vitals"].columns or ()) == {
        "temperature",
        "po2_saturation",
        "breaths",
        "cough",
        "allergy",
    }
    assert recipe.task.options["tasks"]["severity"]["target"] == "went_icu"
    assert "no medical device" in (recipe.notice or "")
    parity = {"rows": 1, "max_abs_difference": 0.0, "tolerance": 1e-3}
    card = model_card("clinic", {"inputs": []}, {}, parity, recipe.notice)
    assert card.splitlines()[2].startswith("> **Notice.** This is no medical device.")
    assert "Notice" not in model_card("clinic", {"inputs": []}, {}, parity)


class Doctor:
    """Says what it was asked; fails when told to."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.broken = False

    def predict(self, row: Mapping[str, Any]) -> dict[str, Any]:
        if self.broken:
            raise FuselineError("not_ready", "the model server gave no answer", "is it up?")
        self.rows.append(row)
        return {
            "value": {"finding": None, "severity": "N", "lungs": []},
            "details": {"finding": {"abstained": True, "suggestion": "murk"}, "severity": {"abstained": False}},
            "odd": {"xray": 0.999, "report": 0.2, "vitals": None},
        }

    def explain(self, row: Mapping[str, Any], of: str) -> dict[str, Any]:
        self.rows.append(row)
        return {"of": {"target": of}}

    def nearest(self, row: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
        return [{"id": str(i), "score": 0.5} for i in range(count)]


@pytest.fixture
def clinic(folder: Path) -> Iterator[tuple[Cases, Doctor, TestClient]]:
    cases, doctor = Cases.of(folder, TOLD, 15), Doctor()
    with TestClient(make_app(Clinic(cases, doctor))) as client:
        yield cases, doctor, client


def test_the_page_gets_its_cases(clinic: tuple[Cases, Doctor, TestClient], table: pl.DataFrame) -> None:
    cases, _, client = clinic
    state = client.get("/state").json()
    assert [c["row"] for c in state["cases"]] == list(range(40, 55)), "the first fifteen test rows"
    assert "no medical device" in state["notice"]
    assert {f["column"] for f in state["fields"]} == {"notes", "age", "sex", *data.HEADER[4:9]}
    for case in state["cases"]:
        name = table["image"][case["row"]]
        assert case["picture"] == ("" if name is None else name.rsplit(".", 1)[1])
        got = client.get(f"/pictures/{case['row']}")
        assert got.status_code == (404 if name is None else 200)
        if name is not None:
            assert Image.open(io.BytesIO(got.content)).size == (LOOK, LOOK)
    cells = client.get("/cases/41").json()["cells"]
    assert cells["notes"] == table["notes"][41]
    assert not cells.keys() & {"finding", "went_icu", "boxes", "patient"}, "the truth is not in the form"
    for path in ("/cases/9999", "/pictures/-1", "/pictures/80"):
        assert client.get(path).status_code == 404
    for name in ("/", "/clinic.js", "/clinic.css"):
        got = client.get(name)
        assert got.status_code == 200
        assert got.headers["content-security-policy"] == "default-src 'self'"
    page = client.get("/").text
    assert "No medical device" in page
    assert "<style" not in page
    assert "style=" not in page
    assert client.get("/../app.py").status_code == 404
    assert cases.rows[0] == 40


def test_an_answer_is_asked_for_with_what_the_form_holds(
    clinic: tuple[Cases, Doctor, TestClient], folder: Path, table: pl.DataFrame
) -> None:
    cases, doctor, client = clinic
    case = next(r for r in cases.rows if table["image"][r] is not None)
    body = {"cells": {"notes": "  ", "age": 61, "sex": "F", "allergy": "true"}, "case": case}
    found = client.post("/ask", json=body).json()
    row = doctor.rows[-1]
    assert (row["notes"], row["age"], row["temperature"], row["allergy"]) == (None, 61, None, "true")
    assert base64.b64decode(row["image"]) == (folder / "data" / table["image"][case]).read_bytes()
    assert found["truth"]["finding"] == table["finding"][case]
    own = base64.b64encode(data.dicom(np.zeros((8, 8), np.uint8), 2)).decode()
    assert client.post("/ask", json={"cells": {}, "case": None, "picture": own}).json()["truth"] is None
    assert doctor.rows[-1]["image"] == own
    assert client.post("/why", json={**body, "of": "severity"}).json() == {"of": {"target": "severity"}}
    near = client.post("/nearest", json=body).json()["rows"]
    assert [n["row"] for n in near] == [0, 1, 2, 3]
    assert near[1]["truth"]["finding"] == table["finding"][1]
    figures = client.get("/metrics").text
    assert 'clinic_answers_total{outcome="abstained",task="finding"} 2.0' in figures
    assert 'clinic_odd_total{input="xray"} 2.0' in figures
    assert "report" not in figures
    doctor.broken = True
    assert client.post("/ask", json=body).status_code == 503
    assert "clinic_failures_total 1.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"cells": []},
        {"cells": {"finding": "murk"}},
        {"cells": {"age": "old"}},
        {"cells": {"age": True}},
        {"cells": {"age": [1]}},
        {"cells": {"age": 10**400}},
        {"cells": {"allergy": 3}},
        {"cells": {"allergy": [True]}},
        {"cells": {"sex": {"a": 1}}},
        {"cells": {"notes": "x" * (MOST_TEXT + 1)}},
        {"cells": {}, "case": True},
        {"cells": {}, "case": "40"},
        {"cells": {}, "case": 3},
        {"cells": {}, "picture": 7},
        {"cells": {}, "picture": "no base64 !"},
        {"cells": {}, "picture": "/etc/passwd.png"},
    ],
)
def test_a_hostile_question_is_refused(clinic: tuple[Cases, Doctor, TestClient], body: Any) -> None:
    _, doctor, client = clinic
    for path in ("/ask", "/why", "/nearest"):
        got = client.post(path, json={**body, "of": "finding"} if isinstance(body, dict) else body)
        assert got.status_code in (400, 404), got.text
    assert not doctor.rows


def test_hostile_bytes_are_refused(clinic: tuple[Cases, Doctor, TestClient]) -> None:
    _, _, client = clinic
    for content in (b"{", b"\xff\xfe", b'{"cells": {"age": NaN}}', b'{"cells": {"age": 1e999}}', b"[" * 100_000):
        assert client.post("/ask", content=content).status_code == 400
    assert client.post("/why", json={"cells": {}, "of": "lungs"}).status_code == 400
    dicom = data.dicom(np.tile(np.arange(64, dtype=np.uint8), (64, 1)), 3)
    assert client.post("/look", content=dicom).headers["content-type"] == "image/png"
    for content in (b"", b"x", b"<svg onload=alert(1)>", dicom[:200], dicom[:-50]):
        got = client.post("/look", content=content)
        assert got.status_code == 422, content[:20]
    assert client.post("/look", content=b"\0" * (17 * 2**20)).status_code == 413


def test_figures_by_hand() -> None:
    said = pl.DataFrame(
        {
            "row": [0, 1, 2],
            "value": [json.dumps({"finding": v, "severity": "Y"}) for v in ("a", "b", "b")],
            "used": ['["report"]', '["xray"]', '["xray", "report"]'],
        }
    )
    table = pl.DataFrame({"f": ["a", "b", "a"], "s": ["Y", None, "N"]})
    found = measure.by_report(said, table, {"finding": "f", "severity": "s"})
    assert found["finding"] == {"with": {"rows": 2, "accuracy": 0.5}, "without": {"rows": 1, "accuracy": 1.0}}
    assert found["severity"] == {"with": {"rows": 2, "accuracy": 0.5}, "without": {"rows": 0, "accuracy": None}}
    entries = [
        {"present": ["x", "r", "v"], "rows": 9, "metrics": {"finding.auroc": {"value": 0.9}}},
        {"present": ["x", "v"], "rows": 8, "metrics": {"finding.auroc": {"value": 0.7}}},
        {"present": ["x"], "rows": 7, "metrics": {"finding.auroc": {"value": 0.6}}},
    ]
    assert measure.absent({"degradation": entries}) == [
        {"hidden": None, "rows": 9, "finding.auroc": 0.9},
        {"hidden": "r", "rows": 8, "finding.auroc": 0.7},
    ]


def test_the_clinics_alerts_fire_and_stay_silent(tmp_path: Path, checked: Callable[..., str]) -> None:
    for name, place in (("clinic.yml", "rules"), ("clinic_test.yml", "tests")):
        (tmp_path / place).mkdir()
        shutil.copyfile(HERE / "rules" / name, tmp_path / place / name)
    assert "SUCCESS" in checked(tmp_path, "promtool", "test", "rules", "tests/clinic_test.yml")


def test_it_is_watched(tmp_path: Path) -> None:
    assert "rules/clinic.yml" in watch_files(tmp_path, "clinic", HERE / "rules", model_port=1, port=2)
    settings = yaml.safe_load((tmp_path / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    assert "rules/clinic.yml" in settings["rule_files"]
    assert settings["scrape_configs"][-1]["static_configs"] == [{"targets": ["127.0.0.1:2"]}]
