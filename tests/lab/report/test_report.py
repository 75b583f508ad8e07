"""The page: self-contained, well formed, safe against hostile tables, and written whatever is absent."""

import base64
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from fuseline.lab.report import write_report
from fuseline.lab.report.headline import cautions
from fuseline.lab.report.read import FILES, read_run

VOID = {"meta", "link", "img", "source", "br"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}\x00\ud800\u202e$\\frac{1}{2}$"


class Page(HTMLParser):
    """Checks that elements close in order; keeps what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
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

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).replace("\N{NO-BREAK SPACE}", " ").split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag]


def page_of(run: Path) -> Page:
    text = write_report(run).read_text(encoding="utf-8")
    assert len(text) < 5_000_000
    return Page(text)


def check_closed(page: Page) -> None:
    """Nothing is fetched, nothing runs, and ids and anchors match."""
    assert not page.all("script")
    assert not page.all("iframe")
    assert not page.all("object")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        assert not [k for k in attrs if k.startswith("on")], tag
        for key in ("src", "href", "srcset"):
            if key in attrs:
                assert attrs[key].startswith("data:") or (key == "href" and attrs[key].removeprefix("#") in ids), tag


@pytest.fixture(scope="module")
def page(clinic: Path) -> Page:
    return page_of(clinic)


def test_every_section_is_there_and_nothing_is_fetched(page: Page) -> None:
    check_closed(page)
    assert [a["id"] for a in page.all("section")] == [
        "said", "data", "model", "training", "metrics", "answers", "absent", "errors", "again",
    ]  # fmt: skip
    for words in (
        "On 60 test rows that took no part in training, AUROC is",
        "95 % bootstrap interval",
        "14 texts were longer than 128 tokens",
        "3 rows with broken cells were set aside",
        "notes: the same text stands in train and test",
        "xray + notes + cough + vitals",
        "differ from the trained model's by at most 2.1e-06",
        "The kept model is that of step 90",
    ):
        assert words in page.text, words


def test_pictures_are_named_and_drawn_for_light_and_dark(page: Page) -> None:
    images = page.all("img")
    assert all(i["alt"] for i in images)
    plots = [i["src"] for i in images if i["src"].startswith("data:image/svg+xml")]
    dark = [s["srcset"] for s in page.all("source")]
    assert len(plots) == len(dark) == 6  # two of training, ROC, precision-recall, reliability, degradation
    for light, other in zip(plots, dark, strict=True):
        assert light != other
        for uri in (light, other):
            svg = base64.b64decode(uri.split(",", 1)[1]).decode()
            ET.fromstring(svg)
            assert not re.search(r'(href|src)="(?!#)', svg)


def test_worst_errors_show_pictures_sounds_and_texts(page: Page, clinic: Path) -> None:
    wrong = pl.read_parquet(clinic / "predictions.parquet").filter(~pl.col("correct") & (pl.col("part") == "test"))
    worst = wrong.sort("confidence", "row", descending=[True, False])["row"].head(12).to_list()
    assert [int(n) for n in re.findall(r"Row (\d+) ", page.text)] == worst
    thumbnails = [i for i in page.all("img") if i["src"].startswith("data:image/jpeg")]
    assert thumbnails
    for shown in thumbnails:
        picture = Image.open(io.BytesIO(base64.b64decode(shown["src"].split(",", 1)[1])))
        assert picture.size == (160, 120) == (int(shown["width"]), int(shown["height"]))
    assert all(a["src"].startswith("data:audio/wav;base64,") and "controls" in a for a in page.all("audio"))
    assert page.all("audio")
    assert "Bilateral patchy opacities" in page.text


def test_tables_have_headers(page: Page) -> None:
    heads = page.all("th")
    assert heads
    assert all(h["scope"] in ("col", "row") for h in heads)


def test_the_same_run_gives_the_same_bytes(clinic: Path) -> None:
    first = write_report(clinic).read_bytes()
    assert write_report(clinic).read_bytes() == first


@pytest.mark.parametrize("name", [*FILES, "parity.json", "model.fuse", "table"])
def test_each_absent_file_only_shortens_the_page(clinic: Path, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(clinic, tmp_path / "run"))
    if name == "table":
        record = json.loads((run / "run.json").read_text())
        record["table"]["path"] = str(tmp_path / "gone.csv")
        (run / "run.json").write_text(json.dumps(record))
    elif name == "model.fuse":
        shutil.rmtree(run / name)
    else:
        (run / name).unlink()
    page = page_of(run)
    check_closed(page)
    assert (f"Not in the run's folder when this page was written: {name}." in page.text) == (name in FILES)
    assert ("The table can no longer be read" in page.text) == (name == "table")
    if name == "metrics.json":
        assert "It has not been evaluated" in page.text


def test_a_run_of_a_recipe_alone_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: {kind: classification, target: y}\n")
    page = page_of(tmp_path)
    check_closed(page)
    assert "It has not been evaluated" in page.text


def _poison(value):
    """Every text and every key of a JSON value, with what might break out of it."""
    if isinstance(value, dict):
        return {k: _poison(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_poison(v) for v in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_hostile_texts_stay_texts(clinic: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(clinic, tmp_path / "run"))
    for name in ("run.json", "data.json", "metrics.json"):
        value = json.loads((run / name).read_text())
        poisoned = _poison(value)
        if name == "run.json":
            poisoned["table"] = value["table"]
            for mine, theirs in zip(poisoned["inputs"], value["inputs"], strict=True):
                mine["columns"], mine["modality"] = theirs["columns"], theirs["modality"]
        if name == "metrics.json":
            poisoned["task"], poisoned["metric"] = value["task"], value["metric"]
            poisoned["parts"]["test"]["metrics"] |= {HOSTILE: {"value": 0.5}}
            poisoned["degradation"][0]["present"] = [HOSTILE]
        if name == "data.json":
            poisoned["target"]["counts"]["train"][HOSTILE] = 3
        (run / name).write_text(json.dumps(poisoned))
    table = pl.read_csv(clinic.parent / f"{clinic.name}-table" / "table.csv")
    cells = HOSTILE.replace("\ud800", "")
    table = table.with_columns(
        pl.lit(cells).alias("notes"), pl.lit(cells).alias("sex"), image=pl.lit("../../x" + cells)
    )
    table.write_parquet(tmp_path / "table.parquet")
    record = json.loads((run / "run.json").read_text())
    record["table"]["path"] = str(tmp_path / "table.parquet")
    (run / "run.json").write_text(json.dumps(record))
    frame = pl.read_parquet(run / "predictions.parquet")
    chances = json.dumps({HOSTILE.replace("\ud800", ""): 0.9})
    frame.with_columns(
        pl.lit(cells).alias("value"), pl.lit(cells).alias("target"), pl.lit(chances).alias("probabilities")
    ).write_parquet(run / "predictions.parquet")
    (run / "recipe.yaml").write_text(f"# {cells}\nx: 1\n".replace("\x00", ""), encoding="utf-8")

    page = page_of(run)
    check_closed(page)
    assert page.text.count("<script>alert(1)</script>") > 20
    assert page.text.count("{{ 7*7 }}") > 20
    raw = (run / "report.html").read_text(encoding="utf-8")
    assert "\x00" not in raw
    for uri in re.findall(r'"data:image/svg\+xml;base64,([^"]+)"', raw):
        names = {e.tag.split("}")[-1] for e in ET.fromstring(base64.b64decode(uri)).iter()}
        assert not names & {"script", "image", "img", "foreignObject"}


def test_a_page_of_large_sounds_stays_small(write_run, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    run = write_run(tmp_path / "run", rows=120)
    media = tmp_path / "run-table" / "media"
    rng = np.random.default_rng(0)
    for i in range(120):  # 8 s are small enough to be heard, 20 s are not
        soundfile.write(media / f"{i}.wav", rng.normal(0, 0.1, (20 if i % 2 else 8) * 16_000).astype("float32"), 16_000)
    page = page_of(run)
    assert (run / "report.html").stat().st_size < 5_000_000
    assert "20.0 s, 640 kB: too large for this page" in page.text


def test_regression_shows_scatter_and_residuals(write_run, tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", task="regression", rows=120))
    check_closed(page)
    alts = " ".join(i["alt"] for i in page.all("img"))
    assert "Scatter plot of 24 rows: true days" in alts
    assert "residuals over predictions" in alts
    assert re.search(r"“ days ” runs from .* \(median", page.text)
    assert "off by" in page.text


def test_a_cross_validation_has_its_page(write_folds, tmp_path: Path) -> None:
    page = page_of(write_folds(tmp_path / "cv"))
    check_closed(page)
    assert "Over the folds of a cross-validation" in page.text
    assert "95 % interval" not in page.text
    assert "Fold 0" in page.text


def _change(run: Path, **parts: dict) -> None:
    value = json.loads((run / "metrics.json").read_text())
    for part, changes in parts.items():
        value["parts"][part]["metrics"]["auroc"] |= changes
    (run / "metrics.json").write_text(json.dumps(value))


def test_cautions_say_what_makes_the_figure_doubtful(clinic: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(clinic, tmp_path / "run"))
    _change(run, val={"value": 0.9, "low": 0.85, "high": 0.95}, test={"value": 0.72, "low": 0.6, "high": 0.8})
    text = " ".join(cautions(read_run(run)))
    assert "only 60 rows" in text
    assert "may flatter" in text
    data = json.loads((run / "data.json").read_text())
    data["leaks"][0]["severity"] = "note"  # short texts are alike without being leaked
    (run / "data.json").write_text(json.dumps(data))
    assert "may flatter" not in " ".join(cautions(read_run(run)))
    assert "Validation and test disagree" in text
    assert "a guess" not in text
    _change(run, val={"low": 0.75}, test={"low": 0.45})
    text = " ".join(cautions(read_run(run)))
    assert "Validation and test disagree" not in text
    assert "the score of a guess" in text
    for part in ("val", "test"):
        _change(run, **{part: {"low": None, "high": None}})
    assert "disagree" not in " ".join(cautions(read_run(run)))  # 0.9 and 0.72: not more than 0.2 apart
    _change(run, test={"value": 0.6})
    assert "disagree" in " ".join(cautions(read_run(run)))
    value = json.loads((run / "metrics.json").read_text())
    del value["parts"]["test"]
    (run / "metrics.json").write_text(json.dumps(value))
    assert "There is no test part" in " ".join(cautions(read_run(run)))
