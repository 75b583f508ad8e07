"""The page of a compression search: contents, escaping, every trial, whatever is absent, the same bytes."""

from __future__ import annotations

import base64
import json
import random
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fuseline.errors import FuselineError
from fuseline.lab.report.compression import write_compression
from fuseline.lab.report.compression_plots import Dot, ceiling, front, trade_off
from fuseline.lab.report.compression_tables import above
from fuseline.lab.report.compression_words import change, points, times
from fuseline.lab.report.read import Estimate

VOID = {"meta", "link", "img", "source", "br"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}\x00\ud800\u202e$\\frac{1}{2}$"
SUBSETS = (["image", "notes"], ["image"], ["notes"])


def _drop(value: float | None, half: float = 0.7) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": round(value, 3), "low": round(value - half, 3), "high": round(value + half, 3)}


def _subsets(base: float, drops: tuple[float, ...], names=SUBSETS, rows: int = 240) -> list[dict[str, Any]]:
    found = []
    for i, (present, drop) in enumerate(zip(names, drops, strict=True)):
        own = base - 0.03 * i
        found.append(
            {"present": present, "rows": rows - 11 * i, "base": own, "score": own - drop / 100, "drop": _drop(drop)}
        )
    return found


def trial(key: str, words: str, size: float, ms: float, drop: float, **more: Any) -> dict[str, Any]:
    """A measured candidate: `size` MB, `ms` of one row, `drop` points below a base of 0.861."""
    broken = [f"drop {drop:.2f} > 0.5"] if drop > 0.5 else []
    broken += [f"{ms:.1f} ms > 30 ms"] if ms > 30 else []
    broken += [f"{size:.1f} MB > 50 MB"] if size > 50 else []
    half = 0.0 if key == "0base" else 0.7
    latency = {str(n): {"median": ms * k, "low": ms * k * 0.96, "high": ms * k * 1.07} for n, k in ((1, 1), (8, 5.6))}
    found = {
        "key": key,
        "words": words,
        "candidate": candidate(),
        "size_bytes": round(size * 1e6),
        "latency": latency,
        "speedup": {"1": 31.2 / ms, "8": 31.2 / ms * 0.9},
        "score": 0.861 - drop / 100,
        "drop": _drop(drop, half),
        "subsets": _subsets(0.861, (drop, drop + 0.3, drop + 0.1) if half else (0, 0, 0)),
        "same_answer": 1 - abs(drop) / 50,
        "change": abs(drop) / 60,
        "feasible": not broken,
        "why_not": broken,
        "seconds": {"structure": 12.4, "quantise": 3.1, "measure": 4.5},
        "notes": [],
        "failed": None,
    }
    return found | more


def candidate(backend: str = "onnxruntime", **cut: Any) -> dict[str, Any]:
    precision = cut.pop("precision", {})
    return {
        "cut": {"layers": {}, "widths": {}, "vocabulary": [], **cut},
        "numbers": {"backend": backend, "precision": precision, "keep_float": [], "aware": False},
        "student": "",
    }


def failed(key: str, words: str, reason: str) -> dict[str, Any]:
    empty = dict.fromkeys(("size_bytes", "latency", "speedup", "score", "same_answer", "change"))
    none = {"drop": _drop(None), "subsets": [], "feasible": False, "why_not": [reason], "failed": reason}
    return trial(key, words, 1, 1, 0) | empty | none


CANDIDATES = (
    ("a1", "image, notes, fusion.head: int8 · OpenVINO", 27.1, 14.0, 0.12),
    ("a2", "notes: 67% of layers, int8 · image: int8 · OpenVINO", 25.4, 11.6, 0.21),
    ("a3", "notes: 50% of layers, used words, int8 · image: 75% of widths, int8 · OpenVINO", 24.2, 10.1, 0.34),
    ("a4", "notes: 34% of layers, int8 · image: int8 · OpenVINO", 22.9, 8.2, 1.42),
    ("a5", "notes: 17% of layers, int8 · image: 50% of widths, int8 · OpenVINO", 17.0, 5.1, 3.9),
    ("a6", "notes: 50% of layers · ONNX Runtime", 84.3, 19.8, 0.2),
    ("a7", "image, notes: int8-dynamic · ONNX Runtime", 30.5, 22.0, 0.65),
    ("a8", "notes: used words, weights-int8 · ONNX Runtime", 38.8, 29.1, -0.05),
    ("a9", "image, notes: weights-int4 · ONNX Runtime", 15.2, 30.4, 0.9),
    ("b1", "image: 30% of widths · ONNX Runtime", 96.1, 26.0, 7.6),
    ("b2", "notes: 50% of layers, int8 · image: 75% of widths, int8 · OpenVINO", 21.9, 8.9, 0.47),
)
FAILURES = (
    ("c1", "image: int8 · ONNX Runtime", "no_range: the calibration saw no finite value in encoders.0.conv1"),
    ("c2", "notes: 17% of layers, int8 · OpenVINO", "nothing is left of encoders.1.backbone.model.encoder.layer"),
)
EFFECTS = (
    ("notes", "int8", 0.004, 0.06, 51.2, None),
    ("image", "int8", 0.011, 0.14, 10.1, None),
    ("fusion.head", "int8", 0.019, 0.32, 2.4, None),
    ("notes", "67% of layers", 0.014, None, 14.2, 0.22),
    ("notes", "34% of layers", 0.061, None, 28.4, 0.44),
    ("image", "50% of widths", 0.048, None, 7.6, 0.11),
    ("notes", "used words only", 0.0, None, 31.0, 0.0),
)


def met() -> dict[str, Any]:
    """Budget met: eleven candidates and two failures."""
    base = trial("0base", "ONNX Runtime", 104.2, 31.2, 0.0, same_answer=1.0, seconds={"measure": 4.5})
    trials = {one["key"]: one for one in (base, *(trial(*c) for c in CANDIDATES), *(failed(*f) for f in FAILURES))}
    chosen = trials["a3"]
    chosen["candidate"] = candidate(
        "openvino",
        layers={"notes": 0.5},
        widths={"image": 0.75},
        vocabulary=["notes"],
        precision={"image": "int8", "notes": "int8", "fusion.head": "bfloat16"},
    )
    chosen["notes"] = ["notes: the first attention stays in float32: int8 moved its answers by 0.21"]
    chosen["subsets"][1]["drop"] = _drop(1.1)
    trials["b2"] |= {"feasible": False, "why_not": ["with notes only: drop 2.10, surely above 0.90"]}
    names = ("part", "action", "change", "drop", "size_mb", "share_of_time")
    last = {"base": trials["0base"]["latency"], "chosen": trial("", "", 1, 10.0, 0)["latency"]}
    return {
        "model": {"name": "chest x-ray & notes", "version": "2026-07-01-3f2a", "path": "/runs/chest/model.fuse"},
        "table": "/data/chest/table.csv",
        "task": "classification",
        "metric": "auroc",
        "higher_is_better": True,
        "seed": 0,
        "machine": "2 threads of 4 cores, onnxruntime 1.32.0, openvino 2026.4.1",
        "created": "2026-07-29T10:12:00+00:00",
        "seconds": 312.0,
        "budget": {"max_latency_ms": 30.0, "max_size_mb": 50.0, "max_drop": 0.5},
        "status": "met",
        "obstacles": [],
        "stopped": "",
        "rows": {
            "train": 1200,
            "select": 240,
            "test": 310,
            "of": "val",
            "notes": ["3 rows with broken cells left out"],
        },
        "chosen": "a3",
        "base": "0base",
        "pareto": ["a8", "a1", "a2", "a3", "b2", "a9", "a4", "a5"],
        "trials": list(trials.values()),
        "sensitivity": [dict(zip(names, e, strict=True)) for e in EFFECTS],
        "final": {
            "rows": 310,
            "of": "test",
            "latency": last,
            "score": 0.8479,
            "drop": _drop(0.41),
            "subsets": _subsets(0.852, (0.41, 2.4, 0.2), rows=310),
            "same_answer": 0.98,
            "change": 0.007,
        },
    }


def not_met() -> dict[str, Any]:
    """No candidate fast enough, no unseen rows."""
    found = met() | {"status": "not_met", "stopped": "the limit of 14 trials was reached"}
    found["final"]["of"] = None
    found["budget"] = {"max_latency_ms": 5.0, "max_size_mb": None, "max_drop": 0.5}
    found["obstacles"] = [
        "the closest found breaks the budget: 10.1 ms > 5 ms",
        "the fastest found takes 5.1 ms: notes: 17% of layers, int8 · image: 50% of widths, int8 · OpenVINO",
        "most of the time that a single cut can save is in notes (34% of layers: 44%)",
    ]
    for one in found["trials"]:
        one["feasible"] = False
        if one["failed"] is None:
            one["why_not"] = [f"{one['latency']['1']['median']:.1f} ms > 5 ms", *one["why_not"]]
    return found


def alone() -> dict[str, Any]:
    """The float model and nothing else."""
    found = met() | {"chosen": "0base", "pareto": ["0base"], "sensitivity": [], "final": None, "status": "not_met"}
    found["trials"] = found["trials"][:1]
    return found


def regression() -> dict[str, Any]:
    """An error in days; drops are percent of the base's."""
    found = met() | {"task": "regression", "metric": "mae", "higher_is_better": False}
    for one in [*found["trials"], found["final"]]:
        one["same_answer"] = None
        for item in [one, *one["subsets"]]:
            if item["drop"]["value"] is not None:
                item["score"] = 3.21 * (1 + item["drop"]["value"] / 100)
                item |= {"base": 3.21} if "present" in item else {}
    return found


def many(rows: int = 200) -> dict[str, Any]:
    """As many trials as a long search makes, some ruined, and the sensitivity of four inputs."""
    rng = random.Random(0)
    found = met()
    for i in range(rows):
        ms = rng.uniform(4, 30)
        drop = 60 / ms**2 + rng.gauss(0, 0.4) + (rng.uniform(5, 40) if i % 9 == 0 else 0)
        words = (
            f"notes: {rng.randint(1, 9) * 10}% of layers, int8 · image: {rng.randint(2, 9) * 10}% of widths · OpenVINO"
        )
        found["trials"].append(trial(f"k{i:04d}", words, 104 * ms / 31 * rng.uniform(0.5, 1), ms, round(drop, 2)))
    done = [t for t in found["trials"] if t["failed"] is None]
    costs = {t["key"]: (t["size_bytes"], t["latency"]["1"]["median"], t["drop"]["value"]) for t in done}
    for key, cost in costs.items():
        others = (c for k, c in costs.items() if k != key)
        if not any(all(a <= b for a, b in zip(o, cost, strict=True)) for o in others):
            found["pareto"].append(key)
    for part in ("cough", "vitals", "image"):
        for share in (84, 67, 50, 34, 17):
            e = {"part": part, "action": f"{share}% of layers", "change": (100 - share) ** 2 / 4e5 * len(part) / 5}
            found["sensitivity"].append(e | {"drop": None, "size_mb": 0.2 * (100 - share), "share_of_time": 0.1})
    return found


class Page(HTMLParser):
    """Checks that elements close in order; keeps what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.raw = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.said).replace("\N{NO-BREAK SPACE}", " ").split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag]


def page_of(folder: Path, found: dict[str, Any]) -> Page:
    """The page, checked to fetch nothing and to run nothing."""
    (folder / "compress.json").write_text(json.dumps(found))
    path = write_compression(folder)
    assert path == folder / "compress.html"
    text = path.read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    page = Page(text)
    assert not {t for t, _ in page.tags} & {"script", "iframe", "object", "form", "base"}
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        assert not [k for k in attrs if k.startswith("on")], tag
        for key in ("src", "href", "srcset"):
            if key in attrs:
                assert attrs[key].startswith("data:") or (key == "href" and attrs[key].removeprefix("#") in ids), tag
    assert "url(" not in text
    assert "@import" not in text
    assert all(h["scope"] in ("col", "row", "colgroup") for h in page.all("th"))
    assert all(i["alt"] for i in page.all("img"))
    return page


def test_a_met_budget_in_words_and_tables(tmp_path: Path) -> None:
    page = page_of(tmp_path, met())
    sections = [a["id"] for a in page.all("section")]
    assert sections == ["result", "absent", "trade", "trials", "sensitivity", "how"]
    for words in (
        "Budget met (at most 30 ms, 50 MB and 0.5 points lost).",
        "It is 4.3 times smaller (104 → 24.2 MB), 3.1 times faster (31.2 → 10.0 ms for one row), AUROC 0.852 → 0.848: "
        "0.41 points less (95 %: −0.29 to 1.11), on 310 test rows that the search never saw.",
        "The interval of the drop reaches 1.11 points",
        "10.1 ms, kept",
        "0.34 on the rows that chose, kept",
        "Latency for 8 rows",
        "53.8 to 59.9",
        "used words of notes",
        "Format · fusion.head",
        "surely above2.40",
        "With int8 alone, “fusion.head” is the most sensitive part (its answers move by 0.019",
        "and “notes” the least (0.004)",
        "Of all single steps, 34% of layers in “notes” moves the answers most: by 0.061, for 28.4 MB saved.",
        "The best bargain is used words only in “notes”: 31.0 MB",
        "the same 240 rows of the validation part",
        "2026-07-01-3f2a",
        "2 threads of 4 cores, onnxruntime 1.32.0",
        "5 min 12 s (of it: measuring",
        "1,200 to heal with · 240 to choose with · 310 unseen",
        "3 rows with broken cells left out",
        "no_range: the calibration saw no finite value",
    ):
        assert words in page.text, words
    assert len(page.all("img")) == 3
    assert "Scatter plot of 12 models" in page.all("img")[0]["alt"]
    assert "the closest" not in page.text


def test_an_unmet_budget_names_its_obstacles(tmp_path: Path) -> None:
    page = page_of(tmp_path, not_met())
    for words in (
        "Budget not met (at most 5 ms and 0.5 points lost). What follows is the closest found.",
        "most of the time that a single cut can save is in notes",
        "Closest: notes: 50% of layers",
        "10.1 ms, not kept",
        "on the 240 rows that chose it",
        "No rows were kept from the search",
        "the limit of 14 trials was reached",
    ):
        assert words in page.text, words
    assert "never saw" not in page.text
    assert "Unseen" not in page.text


def test_the_float_model_alone(tmp_path: Path) -> None:
    page = page_of(tmp_path, alone())
    assert "nothing found is better than the float model" in page.text
    assert "104.2 MB > 50 MB" in page.text  # no obstacles stated: what the model itself breaks
    assert not page.all("img")
    assert [a["id"] for a in page.all("section")] == ["result", "trials", "how"]


def test_an_error_in_units_drops_in_percent(tmp_path: Path) -> None:
    page = page_of(tmp_path, regression())
    assert "MAE 3.210 → 3.223: 0.41 % more (95 %: −0.29 to 1.11)" in page.text
    assert "in standard deviations of the target" in page.text
    assert "Same answer–" not in page.text
    assert "0.5 points" not in page.text


@pytest.mark.parametrize("found", [met(), not_met(), many()], ids=["met", "not met", "many"])
def test_every_trial_is_there(tmp_path: Path, found: dict[str, Any]) -> None:
    page = page_of(tmp_path, found)
    keys = re.findall(r'<code class="quiet"><bdi>([^<]+)</bdi></code>', page.raw)
    assert sorted(["0base", *keys]) == sorted(t["key"] for t in found["trials"])
    inside = [t["key"] for t in found["trials"] if t["feasible"] and t["failed"] is None]
    done = [k for k in keys if not k.startswith("c")]
    assert set(done[: len(inside)]) == set(inside)
    spans = {t["key"]: t["latency"]["1"]["median"] for t in found["trials"] if t["latency"]}
    for group in (done[: len(inside)], done[len(inside) :]):
        assert [spans[k] for k in group] == sorted(spans[k] for k in group)


def test_the_same_search_gives_the_same_bytes(tmp_path: Path) -> None:
    first = page_of(tmp_path, met()).raw
    assert page_of(tmp_path, met()).raw == first


def _poison(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _poison(v) for k, v in value.items()} | {HOSTILE: HOSTILE}
    if isinstance(value, list):
        return [_poison(v) for v in value]
    return value + HOSTILE if isinstance(value, str) and value else value


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    page = page_of(tmp_path, _poison(met()))
    assert page.text.count("<script>alert(1)</script>") > 50
    assert page.text.count("{{ 7*7 }}") > 50
    assert "\x00" not in page.raw
    for uri in re.findall(r'"data:image/svg\+xml;base64,([^"]+)"', page.raw):
        names = {e.tag.split("}")[-1] for e in ET.fromstring(base64.b64decode(uri)).iter()}
        assert not names & {"script", "image", "img", "foreignObject"}
    wide = json.loads(json.dumps(met()).replace("notes", "W" * 3000).replace("image", "名前عربي<b>"))
    assert "名前عربي<b>" in page_of(tmp_path, wide).text


BROKEN = (None, [], {}, "x", -1, True, 1e308, [None, 3, "x", {}], {"a": None})


@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_whatever_is_absent_or_odd_only_shortens_the_page(
    tmp_path: Path, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key of the file, of a trial and of what lies in it, in turn; all is drawn, but no picture is written."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, out, **options: out.write("<svg></svg>"))
    whole = met()
    places = [[k] for k in whole]
    places += [["trials", i, k] for i in (0, 3) for k in whole["trials"][0]]
    places += [["trials", 3, "latency", "1"], ["trials", 3, "drop", "value"], ["trials", 3, "subsets", 0]]
    places += [["final", k] for k in whole["final"]] + [["sensitivity", 0, k] for k in whole["sensitivity"][0]]
    places += [["budget", k] for k in whole["budget"]] + [["rows", k] for k in whole["rows"]]
    for place in places[:: 1 if value is None else 3]:
        found = met()
        inner: Any = found
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        page_of(tmp_path, found)


def test_no_search_and_a_broken_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match=r"no compress\.json in") as caught:
        write_compression(tmp_path)
    assert caught.value.code == "no_search"
    (tmp_path / "compress.json").write_text('{"trials": [')
    with pytest.raises(FuselineError, match="cannot be read as JSON"):
        write_compression(tmp_path)
    assert "no candidate could be chosen" in page_of(tmp_path, {}).text
    assert "The search is not finished" in page_of(tmp_path, {"status": "searching"}).text


def test_a_second_timing_above_the_budget_is_called_out(tmp_path: Path) -> None:
    found = met()
    found["final"]["latency"]["chosen"]["1"]["median"] = 33.0
    page = page_of(tmp_path, found)
    assert "Timed once more at the end, it took 33.0 ms: above the budget of 30 ms." in page.text
    assert "1.1 times slower" in page.text
    found["final"] |= {"drop": _drop(0.9), "rows": 60}
    text = page_of(tmp_path, found).text
    assert "on 60 test rows that the search never saw the drop is 0.90 points" in text
    assert "only 60 rows" in text


def test_words_of_a_change() -> None:
    drop = Estimate("drop", 0.34, -0.41, 1.12)
    said = [change(e, u, up).replace("\xa0", " ") for e, u, up in (
        (drop, "points", True), (drop, "points", False), (drop, "%", False),
        (Estimate("drop", -0.34, -1.12, 0.41), "points", True), (Estimate("drop", 1.0), "points", True),
        (Estimate("drop", 0.001, -0.2, 0.2), "points", True), (Estimate("drop", None), "points", True),
    )]  # fmt: skip
    assert said == [
        "0.34 points less (95 %: −0.41 to 1.12)",
        "0.34 points more (95 %: −0.41 to 1.12)",
        "0.34 % more (95 %: −0.41 to 1.12)",
        "0.34 points more (95 %: −0.41 to 1.12)",
        "1.00 point less",
        "the same (95 %: −0.20 to 0.20)",
        "not known",
    ]
    assert [points(v) for v in (None, -0.001, -0.41, 12.34, 1234.0)] == ["–", "0.00", "−0.41", "12.3", "1,234"]
    assert times(4.31, "smaller", "larger", "as large") == ("4.3", "smaller")
    assert times(0.5, "smaller", "larger", "as large") == ("2.0", "larger")
    assert times(1.04, "smaller", "larger", "as large") == ("1", "as large")
    assert times(None, "smaller", "larger", "as large") == ("–", "as large")


def test_a_drop_above_the_budget_is_marked() -> None:
    assert above(Estimate("", 0.5, 0.1, 0.9), 0.5) == ""
    assert above(Estimate("", 0.6, 0.1, 0.9), 0.5) == "above"
    assert above(Estimate("", 0.9, 0.6, 1.2), 0.5) == "surely above"
    assert above(Estimate("", 0.9), None) == above(Estimate("", None), 0.5) == ""


def test_the_front_and_the_picture_s_edge() -> None:
    dots = [Dot(x, Estimate("", y)) for x, y in ((3, 0.5), (1, 2.0), (2, 1.0), (2, 3.0), (4, 0.7))]
    assert [(d.x, d.y) for d in front(dots)] == [(1, 2.0), (2, 1.0), (3, 0.5)]
    ruined = [*dots, Dot(1.0, Estimate("", 80.0)), Dot(5.0, Estimate("", 0.0), "base")]
    assert 2.0 < ceiling(ruined, 0.5) < 10
    drawn = trade_off("t", ruined, "ms", "drop", x_unit="ms", y_limit=0.5, log=True)
    assert drawn is not None
    assert "1 beyond" in base64.b64decode(drawn.light.split(",", 1)[1]).decode()
    assert trade_off("t", dots[:1], "ms", "drop", x_unit="ms") is None
