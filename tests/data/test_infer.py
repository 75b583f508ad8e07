"""What columns are taken for, in many alphabets, and that every draft is a recipe that holds."""

from __future__ import annotations

import base64
import datetime
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from fuseline.data import infer as infer_module
from fuseline.data.draft import draft_recipe, scalar
from fuseline.data.draft_forecast import draft_forecast
from fuseline.data.infer import Inferred, infer
from fuseline.data.table import Table
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.recipe import Recipe, parse_recipe

SHARED = Path(os.environ.get("FUSELINE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
WAV = b"RIFF\0\0\0\0WAVEfmt " + bytes(200)
N = 60


def _look(target: str | None = None, **columns: list[Any]) -> Inferred:
    return infer(Table.open(pl.DataFrame(columns)), target)


def _kind(cells: list[Any], name: str = "x") -> str:
    return _look(**{name: cells})[name].kind


def _draft(inferred: Inferred, target: str | None) -> Recipe:
    return parse_recipe(yaml.safe_load(draft_recipe("t.csv", inferred, target)))


SENTENCES = [
    "The lungs are clear.",
    "Kein Befund im Röntgenbild.",
    "両肺野に異常を認めない",
    "Лёгкие без очаговых теней.",
    "لا توجد علامات مرضية",
]


@pytest.mark.parametrize(
    ("name", "cells", "kind"),
    [
        ("x", [f"{s} {i}" for i in range(12) for s in SENTENCES], "text"),
        (
            "所見",
            [f"右下肺野に浸潤影を認め{c}る" for c in "あいうえおかきくけこさしすせそたちつてとなにぬねの"],
            "text",
        ),
        ("x", [f"{i / 7}" for i in range(N)], "number"),
        ("x", [float(i % 13) for i in range(N)], "number"),
        ("x", ["1e3", "-2.5", " 7 "] * 20, "number"),
        ("x", ["12", "n/k"] + ["13", "14"] * 60, "number"),
        ("x", ["12,5", "13,25"] * 30, "ignored"),
        ("code", ["007", "012", "099"] * 20, "category"),
        ("zip", [10115 + i % 9 for i in range(N)], "category"),
        ("x", ["yes", "No"] * 30, "boolean"),
        ("x", ["Y", "n", "N"] * 20, "boolean"),
        ("x", [0, 1] * 30, "boolean"),
        ("x", [True, False] * 30, "boolean"),
        ("x", ["да", "нет"] * 30, "category"),
        ("性別", ["男", "女"] * 30, "category"),
        ("x", [f"2020-01-{1 + i % 28:02} 10:{i:02}" for i in range(N)], "date"),
        ("x", [f"{1 + i % 28}.3.2020" for i in range(N)], "date"),
        ("x", [f"{1 + i % 28}/3/2020" for i in range(N)], "date"),
        ("x", ["1/2/2020", "3/4/2020"] * 30, "ignored"),
        ("x", [20200101 + i % 28 for i in range(N)], "date"),
        ("x", [datetime.date(2020, 1, 1 + i % 28) for i in range(N)], "date"),
        ("x", [datetime.time(1 + i % 20) for i in range(N)], "ignored"),
        ("x", ['["a", "b"]', "[]"] * 30, "ignored"),
        ("x", [["a"], ["b"]] * 30, "ignored"),
        ("x", [f"https://example.org/{i}.jpg" for i in range(N)], "ignored"),
        ("x", ["same"] * N, "ignored"),
        ("x", [None] * N, "ignored"),
        ("x", [f"img{i}.png" for i in range(N)], "image"),
        ("x", [f"клип {i}.OGG" for i in range(N)], "audio"),
        ("x", [PNG + bytes([i]) for i in range(N)], "image"),
        ("x", [WAV] * N, "audio"),
        ("x", [b"whatever"] * N, "ignored"),
        ("x", [base64.b64encode(PNG).decode()] * N, "image"),
        ("x", ["data:audio/wav;base64," + base64.b64encode(WAV).decode()] * N, "audio"),
        ("x", [{"bytes": WAV, "path": "a"}] * N, "audio"),
        ("patient", [i // 3 for i in range(N)], "group"),
        ("PatientID", [f"p{i // 3}" for i in range(N)], "group"),
        ("患者", [f"第{i // 3}号" for i in range(N)], "group"),
        ("пациент", [str(i // 3) for i in range(N)], "group"),
        ("patient", list(range(100, 100 + N)), "ignored"),
        ("patient_age", [20 + i % 30 for i in range(N)], "number"),
        ("user", [i / 7 for i in range(N)], "number"),
        ("speaker", ["a", "b"] * 30, "category"),
        ("case_id", [f"c{i // 2}" for i in range(N)], "group"),
        ("id", [f"{i * 7919 % 1000:x}" for i in range(N)], "ignored"),
        ("index", list(range(5, 5 + N)), "ignored"),
        ("hash", [f"{i * 7919:08x}z" for i in range(N)], "ignored"),
        ("file", [f"a/b-{i}" for i in range(N)], "ignored"),
        ("licence", ["CC BY", "CC0"] * 30, "ignored"),
        ("set", ["train", "test", "val"] * 20, "split"),
    ],
)
def test_kinds(name: str, cells: list[Any], kind: str) -> None:
    column = _look(**{name: cells})[name]
    assert column.kind == kind, column.reason
    assert column.reason
    assert "\n" not in column.reason


def test_absent_shares_and_blank_cells() -> None:
    inferred = _look(x=["1.5", None, "  ", "2"] * 10)
    assert inferred["x"].absent == 0.5
    assert inferred["x"].kind == "number"


def test_files_are_looked_at(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"a{i}.bin.jpg").write_bytes(PNG)
        (tmp_path / f"b{i}.png").write_bytes(WAV)
        (tmp_path / f"c{i}.png").write_bytes(b"<html>")
    frame = pl.DataFrame(
        {
            "picture": [f"a{i}.bin.jpg" for i in range(4)],
            "named_wrongly": [f"b{i}.png" for i in range(4)],
            "html": [f"c{i}.png" for i in range(4)],
            "gone": [f"d{i}.png" for i in range(4)],
            "outside": [f"../{tmp_path.name}x/{i}.png" for i in range(4)],
        }
    )
    frame.write_csv(tmp_path / "t.csv")
    inferred = infer(Table.open(tmp_path / "t.csv"))
    assert {c.name: c.kind for c in inferred.columns} == {
        "picture": "image",
        "named_wrongly": "audio",
        "html": "ignored",
        "gone": "image",
        "outside": "image",
    }
    assert "none of the 4" in inferred["gone"].reason


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["yes", "no"] * 30, {"kind": "classification"}),
        ([0, 1, 2] * 20, {"kind": "classification"}),
        (["0.0", "1.0"] * 30, {"kind": "classification"}),
        ([True, False] * 30, {"kind": "classification"}),
        (["001", "002", "003"] * 20, {"kind": "classification"}),
        (["猫", "犬", "鳥"] * 20, {"kind": "classification"}),
        ([i / 9 for i in range(N)], {"kind": "regression"}),
        ([str(i) for i in range(N)], {"kind": "regression"}),
        (['["a"]', '["a", "b"]', "[]"] * 20, {"kind": "classification"}),
        ([["a"], ["a", "b"], []] * 20, {"kind": "classification"}),
        (["a;b", "b", "a", "c;a", "c;b", "c"] * 10, {"kind": "classification", "mode": "multilabel"}),
    ],
)
def test_tasks(cells: list[Any], task: dict[str, str]) -> None:
    inferred = _look("y", y=cells, x=[i % 7 for i in range(len(cells))])
    assert inferred.task == {**task, "target": "y"}
    assert _draft(inferred, "y").task.options == {k: v for k, v in inferred.task.items() if k != "kind"}


def test_the_target_must_be_there_and_have_values() -> None:
    with pytest.raises(FuselineError) as caught:
        _look("Y", y=[1, 2])
    assert caught.value.code == "missing_column"
    with pytest.raises(FuselineError) as caught:
        _look("y", y=[None, " "])
    assert (caught.value.code, caught.value.column) == ("no_target", "y")


def test_splits_are_suggested() -> None:
    y = ["a", "b"] * 30
    person = [i // 3 for i in range(N)]
    case = [f"c{i // 2}" for i in range(N)]
    assert _look("y", y=y, x=case).split == {"kind": "stratified"}
    assert _look("y", y=y, case_id=case, patient=person).split == {"kind": "group", "group": "patient"}
    assert _look("y", y=y, case_id=case).split == {"kind": "group", "group": "case_id"}
    assert _look("y", y=y, patient=person, part=["train", "test"] * 30).split == {"kind": "given", "column": "part"}
    days = [datetime.date(2020, 1, 1 + i % 28) for i in range(N)]
    assert _look("y", y=y, day=days).split == {"kind": "stratified"}


def test_leaks_of_the_target_are_suspected_and_commented_out() -> None:
    y = [["flu", "cold", "none"][i % 3] for i in range(90)]
    code = {"flu": "J10", "cold": "J00", "none": "Z00"}
    icd = [code[v] if i else None for i, v in enumerate(y)]
    honest = [v if i % 10 else "flu" for i, v in enumerate(y)]
    inferred = _look(
        "y", y=y, icd=icd, copy=y, honest=honest, unique=[f"w{i}" for i in range(90)], age=list(range(1, 181, 2))
    )
    kinds = {c.name: c.kind for c in inferred.columns}
    assert kinds == {
        "y": "target",
        "icd": "leak",
        "copy": "leak",
        "honest": "category",
        "unique": "ignored",
        "age": "number",
    }
    text = draft_recipe("t.csv", inferred, "y")
    assert "# icd: category   # 1% absent; suspected leak" in text
    assert set(_draft(inferred, "y").inputs["tabular"].columns or {}) == {"honest", "age"}


def test_a_rare_class_makes_no_leak_of_every_column() -> None:
    y = ["no"] * 398 + ["yes"] * 2
    inferred = _look("y", y=y, sex=["m", "f"] * 200, ward=[f"w{i % 5}" for i in range(400)])
    assert inferred["sex"].kind == inferred["ward"].kind == "category"


def test_leaks_of_numbers() -> None:
    y = [i * 37 % 50 / 3 for i in range(200)]
    inferred = _look(
        "y",
        y=y,
        fahrenheit=[1.8 * v + 32 for v in y],
        room=[f"r{i * 37 % 50}" for i in range(200)],
        near=[v + (i % 9) for i, v in enumerate(y)],
        half=[v if i % 2 else None for i, v in enumerate(y)],
    )
    assert {c.name: c.kind for c in inferred.columns if c.name != "y"} == {
        "fahrenheit": "leak",
        "room": "leak",
        "near": "number",
        "half": "leak",
    }


def test_large_tables_are_sampled_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_module, "SAMPLE_ROWS", 1000)
    rows = 50_000
    frame = pl.DataFrame(
        {"late": [None] * (rows - 2000) + ["word", "other"] * 1000, "y": ["a", "a", "b", "b"] * (rows // 4)}
    )
    inferred = infer(Table.open(frame), "y")
    assert inferred.rows == rows
    assert inferred["late"].kind == "category"
    big = infer(Table.open(pl.DataFrame({"b": [PNG * 10_000] * 100})))
    assert big["b"].kind == "image"


def test_dates_written_both_ways_are_not_mixed() -> None:
    inferred = _look(
        "y",
        y=["a" if i * 7919 % 5 < 2 else "b" for i in range(N)],
        eu=[f"{1 + i % 28}/2/2020" for i in range(N)],
        us=[f"2/{1 + i % 28}/2020" for i in range(N)],
    )
    tabular = _draft(inferred, "y").inputs["tabular"]
    assert tabular.columns == {"eu": "date"}
    assert tabular.options == {"slash_dates": "dmy"}


def test_awkward_names_are_still_a_recipe() -> None:
    names = [
        "a.b",
        "a_b",
        "present",
        "tabular",
        "no",
        "#x",
        "'q\"",
        "日本 語",
        "tab\there",
        "- y",
        "12",
        "é: {",
        "a\u2028b",
    ]
    texts = {n: [f"some words {i} {k}" for i in range(N)] for k, n in enumerate(names)}
    inferred = _look(
        "y: no",
        **texts,
        **{"true": ["a", "b", "b"] * 20, "null\n": [i / 7 for i in range(N)], "y: no": ["a", "b"] * 30},
    )
    recipe = _draft(inferred, "y: no")
    columns = [c for name in recipe.inputs for c in recipe.columns_of(name)]
    assert sorted(columns) == sorted([*names, "true", "null\n"])
    assert recipe.task.options == {"target": "y: no"}


@given(st.text(min_size=1))
@example("-")
def test_scalars_are_read_back(text: str) -> None:
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return  # no UTF-8 holds these
    assert yaml.safe_load(f"{scalar(text)}: {scalar(text)}   # x\n") == {text: text}


def test_without_a_target_there_is_a_place_for_it() -> None:
    recipe = _draft(_look(x=[i / 7 for i in range(N)]), None)
    assert recipe.task.options == {"target": "TARGET"}


def test_a_table_without_inputs_is_an_error() -> None:
    with pytest.raises(FuselineError) as caught:
        draft_recipe("t.csv", _look("y", y=[1, 2] * 9, x=["same"] * 18), "y")
    assert caught.value.code == "no_inputs"


def test_one_row() -> None:
    inferred = _look("y", y=["a"], x=["3"], note=["a few words here"])
    assert {c.name: c.kind for c in inferred.columns} == {"y": "target", "x": "number", "note": "text"}


@pytest.mark.parametrize(
    ("table", "target", "kinds", "split"),
    [
        (
            "chest-xray/table.csv",
            "covid",
            {
                "image": "image",
                "notes": "text",
                **dict.fromkeys(["age", "temperature", "po2_saturation", "neutrophil_count"], "number"),
                **dict.fromkeys(["lymphocyte_count", "days_since_onset"], "number"),
                **dict.fromkeys(["sex", "view", "location"], "category"),
                **dict.fromkeys(["survival", "went_icu", "intubated"], "boolean"),
                "finding": "leak",
                "patient": "group",
                "covid": "target",
                **dict.fromkeys(["leukocyte_count", "boxes", "licence", "source"], "ignored"),
            },
            {"kind": "group", "group": "patient"},
        ),
        (
            "speech-emotion/table.csv",
            "emotion",
            {
                "audio": "audio",
                **dict.fromkeys(["transcript", "intensity", "sex"], "category"),
                "actor": "group",
                "emotion": "target",
                "seconds": "number",
            },
            {"kind": "group", "group": "actor"},
        ),
        (
            "stamps/table.csv",
            "category",
            {
                "image": "image",
                "description": "text",
                "description_fr": "text",
                "speech_fr": "audio",
                "path": "ignored",
                "category": "target",
            },
            {"kind": "stratified"},
        ),
        (
            "air-quality/beijing_pm25.csv",
            "pm2.5",
            {
                "No": "ignored",
                **dict.fromkeys(["year", "month", "day", "hour", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir"], "number"),
                "pm2.5": "target",
                "cbwd": "category",
            },
            {"kind": "stratified"},
        ),
    ],
)
def test_real_tables(table: str, target: str, kinds: dict[str, str], split: dict[str, str]) -> None:
    path = SHARED / table
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is missing")
        pytest.skip(f"no {path}: set FUSELINE_SHARED_DATA to the folder of the shared tables")
    inferred = infer(Table.open(path), target)
    assert {c.name: c.kind for c in inferred.columns} == kinds
    assert inferred.split == split
    recipe = _draft(inferred, target)
    assert recipe.task.kind == ("regression" if target == "pm2.5" else "classification")


BOXES = '[{"label": "car", "xyxy": [10, 20, 60, 50]}]'


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        ([BOXES, "[]", None], {}),
        ([[{"label": "car", "box": [10.0, 20.0, 60.0, 50.0]}], [], None], {}),
        ([[{"category": "car", "bbox": [70, 20, 60, 10]}], [], None], {"format": "xywh"}),
        (["[[0.1, 0.2, 0.5, 0.5]]", "[]", None], {"normalised": True}),
    ],
)
def test_boxes_are_a_target_of_detection_and_no_input(cells: list[Any], options: dict[str, Any]) -> None:
    columns = {"photo": ["a.jpg"] * 60, "boxes": cells * 20, "age": list(range(60))}
    found = _look("boxes", **columns)
    assert found.task == {"kind": "detection", "target": "boxes", **options}
    assert found.split["kind"] == "random"
    assert _draft(found, "boxes").task.options == {"target": "boxes", **options}
    assert _look("age", **columns)["boxes"].kind == "ignored"


def test_lists_of_other_things_are_no_boxes() -> None:
    for cells in (['["a", "b"]'] * 60, ["[1, 2, 3, 4]"] * 60, ["[]"] * 60, ['[{"label": "a"}]'] * 60):
        assert _look("y", y=cells, x=list(range(60))).task["kind"] == "classification"  # type: ignore[index]


def test_ids_of_a_graph_beside_the_table_are_an_input(tmp_path: Path) -> None:
    """Its entities are found by their names in a file called like one of edges; numbers that coincide are not."""
    names = [f"station-{i}" for i in range(12)]
    edges = pl.DataFrame({"from": [*names, *map(str, range(30))], "to": [*names[1:], *map(str, range(30)), names[0]]})
    edges.write_csv(tmp_path / "city_edges.csv")
    (tmp_path / "triples.csv").write_text("one column only\n")
    table = pl.DataFrame(
        {
            "station": [names[i % 12] for i in range(N)],
            "floor": [i % 9 for i in range(N)],
            "street_id": [f"s{i % 20}" for i in range(N)],
            "y": ["a", "b"] * (N // 2),
        }
    )
    table.write_csv(tmp_path / "table.csv")
    inferred = infer(Table.open(tmp_path / "table.csv"), "y")
    assert {c.name: c.kind for c in inferred.columns} == {
        "station": "graph", "floor": "number", "street_id": "group", "y": "target",
    }  # fmt: skip
    assert inferred["station"].reason == "12 of its 12 different values are entities of city_edges.csv"
    recipe = _draft(inferred, "y")
    assert (recipe.inputs["station"].modality, recipe.inputs["station"].options) == (
        "graph",
        {"edges": "city_edges.csv"},
    )
    table.rename({"station": "patient"}).drop("street_id").write_csv(tmp_path / "table.csv")
    inferred = infer(Table.open(tmp_path / "table.csv"), "y")
    assert inferred["patient"].kind == "graph"
    assert inferred.split == {"kind": "group", "group": "patient"}, "an entity's rows still belong together"


MP4 = b"\0\0\0\x18ftypisom" + bytes(200)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([MP4] * 9, "video"),
        ([f"clips/{i}.mp4" for i in range(9)], "video"),
        ([[PNG, PNG], [PNG]] * 9, "images"),
        ([[f"{i}.png", f"{i}-b.png"] for i in range(9)], "images"),
        ([f'["{i}.png", "{i}-b.png"]' for i in range(9)], "images"),
        ([f"{i}.png;{i}-b.jpg" if i % 3 else f"{i}.png" for i in range(9)], "images"),
        ([f"{i}.png" for i in range(9)], "image"),
        ([[f"no fever on day {i}", "slept well"] for i in range(9)], "texts"),
        ([f'["no fever on day {i}", "slept well"]' for i in range(9)], "texts"),
        ([["mild", "left"], ["severe"]] * 9, "ignored"),
        ([[1.0, 2.0]] * 9, "timeseries"),
        ([f"fever; chills on day {i}; no rash" for i in range(9)], "text"),
    ],
)
def test_videos_and_lists(cells: list[Any], kind: str) -> None:
    found = _look(x=cells, y=["a", "b", "a"] * (len(cells) // 3), target="y")
    assert found["x"].kind == kind, found["x"].reason
    if kind != "ignored":
        assert _draft(found, "y").inputs["x"].modality == kind


OCR = [[{"text": f"no. {i}", "box": [1, 2, 3, 4]}] for i in range(9)]


def test_a_page_and_its_words_are_one_input() -> None:
    found = _look(scan=[PNG] * 9, ocr=[json.dumps(c) for c in OCR], y=["a", "b", "a"] * 3, target="y")
    assert (found["scan"].kind, found["ocr"].kind) == ("image", "words")
    recipe = _draft(found, "y")
    assert list(recipe.inputs) == ["ocr"]
    assert (recipe.inputs["ocr"].modality, recipe.inputs["ocr"].columns) == (
        "document",
        {"scan": "image", "ocr": "words"},
    )
    two = _draft(_look(a=[PNG] * 9, b=[PNG] * 9, ocr=OCR, y=["a", "b", "a"] * 3, target="y"), "y")
    assert {n: i.modality for n, i in two.inputs.items()} == {"ocr": "document", "a": "image", "b": "image"}
    assert two.inputs["ocr"].columns == {"ocr": "words"}


def test_series_are_inputs_and_what_comes_next_is_forecast() -> None:
    past = [[1.5 * i, None, 2.0] for i in range(9)]
    found = _look(load=past, text=[json.dumps(p) for p in past], **{"load@next": [[2, 3]] * 9}, target="load@next")
    assert {c.name: c.kind for c in found.columns} == {
        "load": "timeseries",
        "text": "timeseries",
        "load@next": "target",
    }
    assert found.task == {"kind": "forecast", "target": "load@next"}
    assert _draft(found, "load@next").inputs["load"].modality == "timeseries"
    labels = _look(x=past, y=[[1, 2], [3], [1, 3]] * 3, target="y").task
    assert labels is not None
    assert labels["kind"] == "classification", "whole numbers may be labels"


@pytest.mark.parametrize("split_date", [True, False])
def test_a_long_table_is_drafted_as_windows(tmp_path: Path, split_date: bool) -> None:
    hours = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=i) for i in range(90)]
    when = {"at": [h.isoformat() for h in hours]}
    if split_date:
        when = {part: [getattr(h, part) for h in hours] for part in ("year", "month", "day", "hour")}
    frame = {**when, "load.kw": [20 + i % 24 + i / 7 for i in range(90)], "wind": ["N", "S", "calm"] * 30}
    frame["note"] = [f"nothing special happened on hour {i} of this table" for i in range(90)]
    path = tmp_path / "long.csv"
    pl.DataFrame(frame).write_csv(path)
    text, inferred = draft_forecast("long.csv", Table.open(path), "load.kw", horizon=6, history=None)
    recipe = parse_recipe(yaml.safe_load(text))
    assert recipe.table.windows is not None
    assert recipe.table.windows.time == (("year", "month", "day", "hour") if split_date else "at")
    assert (recipe.table.windows.history, recipe.table.windows.horizon) == (12, 6)
    assert recipe.table.windows.series["others"][-1] == "wind"
    windows = open_table(path, recipe.table)
    windows.require([c for name in recipe.inputs for c in recipe.columns_of(name)] + ["load.kw@next"])
    assert (inferred["note"].kind, inferred["load.kw"].kind) == ("ignored", "target")
    with pytest.raises(FuselineError) as caught:
        draft_forecast("", Table.open(path), "note", horizon=6, history=None)
    assert caught.value.code == "bad_usage"


@pytest.mark.parametrize("names", [["north", "south"], [1, 2]])
def test_several_series_of_one_table_are_told_apart(names: list[object]) -> None:
    rows = [{"at": f"2024-01-{d:02}", "place": n, "load": d * 1.5, "temp": d % 3} for d in range(1, 29) for n in names]
    text, inferred = draft_forecast("", Table.open(pl.DataFrame(rows)), "load", horizon=2, history=None)
    windows = parse_recipe(yaml.safe_load(text)).table.windows
    assert windows is not None
    assert (windows.entity, inferred["place"].kind) == ("place", "group")
    assert windows.series["others"] == ("temp",)
