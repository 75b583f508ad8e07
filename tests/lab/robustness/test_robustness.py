"""The robustness report: in a run, of a package on another table, on the page and the terminal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import polars as pl
import pytest
from typer.testing import CliRunner

import fuseline
from fuseline import api
from fuseline.api import Run
from fuseline.cli.app import app
from fuseline.errors import FuselineError
from fuseline.lab.report.read import read_run
from fuseline.lab.report.robust import robust
from fuseline.lab.robustness import measure
from fuseline.lab.robustness.measure import ALL, SHARES, STRENGTHS

NAMES = ("note", "vitals")


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "STEPS", 2)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained long enough to be better than chance, so that there is something to lose."""
    folder = tmp_path_factory.mktemp("robust")
    table = made.make_table(folder, 60, absent=0.2)
    return api.train(
        made.recipe(
            table,
            inputs={n: {**made.INPUTS[n], "augment": "default"} for n in NAMES},
            fusion={"kind": "concat", "width": 32},
            training={"epochs": 8, "batch_size": 8, "learning_rate": 0.01, "precision": "float32", "loggers": []},
            evaluation={"bootstrap": 20, "degradation": False, "export": False, "robustness": True},
        ),
        out=folder / "run",
        quiet=True,
    )


def found_in(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "robustness.json").read_text(encoding="utf-8"))
    return found


def test_a_run_is_measured_clean_noisy_absent_and_attacked(run: Run) -> None:
    found = found_in(run)
    metric = found["metric"]
    clean = found["clean"][metric]["value"]
    assert clean == pytest.approx(run.score()), "all of the few test rows are measured, as they are"
    for kind, levels in (("noise", STRENGTHS), ("absent", SHARES), ("attacked", STRENGTHS)):
        assert set(found[kind]) == {*NAMES, *([ALL] if kind == "attacked" else [])}
        for item in found[kind].values():
            assert [p.get("strength", p.get("share")) for p in item["curve"]] == list(levels)
            assert all(0 <= p["metrics"][metric] <= 1 for p in item["curve"])
    losses = [p["metrics"]["log_loss"] for p in found["attacked"][ALL]["curve"]]
    assert found["clean"]["log_loss"]["value"] < losses[0] < losses[1] < losses[2]
    noise = max(p["metrics"]["log_loss"] for p in found["noise"]["vitals"]["curve"])
    assert found["clean"]["log_loss"]["value"] != noise
    assert found["attacked"]["vitals"]["pushes"] == "numbers, embeddings"


def test_a_package_is_measured_on_a_table_and_a_run_on_its_own_rows(package: Path, tmp_path: Path) -> None:
    other = made.make_table(tmp_path, 12, seed=9)
    frame = pl.read_csv(other).with_columns(sick=pl.Series([None, *["yes", "no"] * 5, "yes"]))
    frame.write_csv(other)
    found = api.robustness(package, other, bootstrap=0, quiet=True)
    assert (found["rows"], found["of"], found["left_out"]) == (11, "table", 1)
    same = api.evaluate(package, other, bootstrap=0, subsets=False, quiet=True)["parts"]["test"]["metrics"]
    assert found["clean"]["log_loss"]["value"] == pytest.approx(same["log_loss"]["value"], rel=1e-3)
    with pytest.raises(FuselineError) as caught:
        api.robustness(package, frame.head(1), quiet=True)
    assert caught.value.code == "empty_table"

    copied = tmp_path / "run"
    shutil.copytree(package.parent / "run-clinic-0" / "clinic", copied)
    out = CliRunner().invoke(app, ["evaluate", str(copied), "--robustness", "--rows", "6", "--bootstrap", "0", "-q"])
    assert out.exit_code == 0, out.output
    assert "attacked with strength" in out.output
    written = json.loads((copied / "robustness.json").read_text(encoding="utf-8"))
    assert (written["rows"], written["of"]) == (6, "test")
    assert CliRunner().invoke(app, ["evaluate", str(copied)]).exit_code == 2


def test_the_page_shows_it(run: Run) -> None:
    shown = robust(read_run(run.folder))
    assert shown is not None
    assert [len(t.rows) for t in shown.tables] == [2, 2, 3]
    assert len(shown.plots) == 3
    page = run.report.read_text(encoding="utf-8")
    for words in ("Noise, absence, attack", "What training sees", "step 4", "radii of strength 1"):
        assert words in page


def test_hostile_files_shorten_the_page(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "metrics.json", "recipe.yaml"):
        (folder / name).write_bytes((run.folder / name).read_bytes())
    for text in (
        "{",
        "[]",
        '{"clean": {"auroc": {"value": "x"}}}',
        '{"metric": "auroc", "clean": {"auroc": 1}, "noise": 3}',
    ):
        (folder / "robustness.json").write_text(text, encoding="utf-8")
        (folder / "augmented.json").write_text(
            json.dumps({"inputs": [{"input": "<b>", "cards": [{"before": {"jpeg": '"><script>'}, "after": [7]}]}]}),
            encoding="utf-8",
        )
        page = Path(fuseline.lab.report.write_report(folder)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
        assert "<script>" not in page
