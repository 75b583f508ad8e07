"""A trained package, rows as callers send them, the recorder's log, the verb: drift found where it was made."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
import typer
from PIL import Image
from typer.testing import CliRunner

from fuseline.cli import drift as verb
from fuseline.modalities import MediaRoot
from fuseline.monitor.recorder import Recorder
from fuseline.runtime import Predictor, load
from fuseline.serve.calls import Call, Event, RowSeen
from fuseline.serve.describe import describe

Row = dict[str, Any]
app = typer.Typer()
app.command()(verb.command)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.package(tmp_path_factory.mktemp("drift"))


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return load(model, threads=1)


def record(predictor: Predictor, log: Path, rows: list[Row]) -> None:
    """Serve the rows, ten a request, and record all of them."""
    info = describe(predictor)
    recorder = Recorder(log, share=1.0)
    recorder.loaded(info)
    for start in range(0, len(rows), 10):
        parsed = [predictor.parse(row, MediaRoot(None), i) for i, row in enumerate(rows[start : start + 10])]
        good = [p for p in parsed if p.error is None]
        outputs = predictor.run([p.values for p in good]) if good else {"embedding": np.empty((0, 1))}
        answers, vectors = iter(predictor.decode(good, outputs) if good else ()), iter(outputs["embedding"].tolist())
        seen = []
        for p in parsed:
            stats: dict[str, float | str] = {}
            for name, value in p.values.items():
                if value is not None:
                    found = predictor.rows.modalities[name].summary(value)
                    stats |= {f"{name}.{k}": v for k, v in found.items()}
            if p.error is None:
                seen.append(RowSeen(next(answers), stats, tuple(next(vectors))))
            else:
                seen.append(RowSeen(predictor.answer([p])[0], stats, None))
        call = Call(info.name, rows[start : start + 10], f"r{start}")
        recorder.ended(Event(call, "ok", 0.01, rows=tuple(seen), version=info.version))
    recorder.close()


def darkened(row: Row) -> Row:
    if "picture" in row:
        file = io.BytesIO()
        Image.open(io.BytesIO(row["picture"])).point(lambda v: v // 3).save(file, "PNG")
        row["picture"] = file.getvalue()
    return row


def without_notes(row: Row) -> Row:
    return {k: v for k, v in row.items() if k != "note"}


def one_sex(row: Row) -> Row:
    return row | {"sex": "m"} if "sex" in row else row


def broken_sounds(row: Row) -> Row:
    return row | {"sound": b"RIFF nothing"} if "sound" in row else row


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def test_rows_like_the_held_out_ones_are_no_drift(model: Path, predictor: Predictor, tmp_path: Path) -> None:
    record(predictor, tmp_path / "log", served.rows(160, seed=77))
    done = run(model, tmp_path / "log")
    assert done.exit_code == 0, done.output
    assert "no drift found" in done.output
    assert "embedding" in done.output


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        (darkened, "picture.brightness"),
        (without_notes, "note absent"),
        (one_sex, "vitals.sex"),
        (broken_sounds, "sound broken"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_what_was_changed_is_found(
    model: Path, predictor: Predictor, tmp_path: Path, change: Callable[[Row], Row], feature: str
) -> None:
    record(predictor, tmp_path / "log", [change(row) for row in served.rows(160, seed=77)])
    report = tmp_path / "report.html"
    done = run(model, tmp_path / "log", "--out", report)
    assert done.exit_code == verb.FOUND, done.output
    assert "drift found" in done.output
    page = report.read_text(encoding="utf-8")
    alarmed = re.findall(r"<tr class=alarm><th>(.*?) <b", page)
    assert feature in [html.unescape(a) for a in alarmed]
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(", page)
    again = run(model, tmp_path / "log", "--ignore", feature)
    assert feature not in re.findall(r"│ (.*?) +│", again.output)


def test_later_labels_and_times(model: Path, predictor: Predictor, tmp_path: Path) -> None:
    record(predictor, tmp_path / "log", served.rows(60, seed=77))
    labels = tmp_path / "labels.csv"
    lines = [f"r{10 * (i // 10)},{i % 10},{'yes' if i % 2 else 'no'}" for i in range(60)]
    labels.write_text("\n".join(["request,row,label", *lines, "nobody,0,yes"]), encoding="utf-8")
    done = run(model, tmp_path / "log", "--labels", labels, "--since", "1h", "--out", tmp_path / "r.html")
    assert "60 labels" in done.output
    assert "1 labels belong to no row" in done.output
    assert "live accuracy" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert run(model, tmp_path / "log", "--since", "2999-01-01").exception.code == "empty_log"
    assert run(model, tmp_path / "log", "--since", "soon").exception.code == "bad_argument"
    assert run(model, tmp_path / "nothing").exception.code == "no_such_file"
