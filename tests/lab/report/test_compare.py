"""Runs side by side."""

import json
from pathlib import Path

import pytest

from fuseline.errors import FuselineError
from fuseline.lab.report import compare, comparison_rows, write_comparison
from fuseline.lab.report.compare import flatten


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    import importlib.util

    spec = importlib.util.spec_from_file_location("made", Path(__file__).parent / "conftest.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    home = tmp_path_factory.mktemp("runs")
    first = made.write_run(home / "a", name="first", rows=120)
    table = home / "a-table"
    second = made.write_run(home / "b", name="first", fusion="sum", learning_rate=0.01, seed=1, rows=120, table=table)
    days = made.write_run(home / "c", name="days", task="regression", rows=120, table=table)
    return [first, second, days]


def test_metrics_cost_and_recipe_differences(runs: list[Path]) -> None:
    found = compare(runs[:2])
    assert (found.task, found.target, found.metrics[0]) == ("classification", "covid", "auroc")
    assert [r.run for r in found.table] == ["first (a)", "first (b)"]
    assert found.differences == ["fusion.kind", "training.learning_rate"]
    assert found.table[1].recipe == {"fusion.kind": "sum", "training.learning_rate": 0.01}
    assert found.table[0].train_seconds == 68.4
    assert found.table[0].package_bytes == 1_500_000
    assert not found.cautions
    stated = [json.loads((r / "metrics.json").read_text())["parts"]["test"]["metrics"] for r in runs[:2]]
    for name in ("auroc", "log_loss"):
        values = [s[name]["value"] for s in stated]
        best = max(values) if name == "auroc" else min(values)
        assert found.best(name) == values.index(best)


def test_rows_for_a_terminal(runs: list[Path]) -> None:
    head, rows = comparison_rows(compare(runs[:2]))
    assert all(len(r) == len(head) for r in rows)
    assert head[:3] == ["run", "rows", "AUROC"]
    assert head[-2:] == ["fusion.kind", "training.learning_rate"]
    assert rows[0][-2:] == ["attention", "0.001"]
    assert " to " in rows[0][2]


def test_the_page_is_closed_and_complete(runs: list[Path], tmp_path: Path) -> None:
    text = write_comparison(runs[:2], tmp_path / "compare.html").read_text(encoding="utf-8")
    for words in ("first (a)", "fusion.kind", "Training time", "AUROC"):
        assert words in text
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_hostile_names_stay_texts(runs: list[Path], tmp_path: Path) -> None:
    record = json.loads((runs[0] / "run.json").read_text())
    other = tmp_path / "run"
    other.mkdir()
    (other / "run.json").write_text(json.dumps(record | {"name": "<script>alert(1)</script>$x$"}))
    (other / "metrics.json").write_bytes((runs[0] / "metrics.json").read_bytes())
    recipe = (runs[0] / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe + "'<b onclick=x>': '<i>'\n")
    text = write_comparison([runs[0], other], tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b onclick" not in text
    assert "&lt;b onclick=x&gt;" in text


def test_runs_of_other_tasks_are_refused(runs: list[Path]) -> None:
    with pytest.raises(FuselineError, match=r"different tasks \(first: classification; days: regression\)") as caught:
        compare([runs[0], runs[2]])
    assert caught.value.code == "runs_differ"


def test_runs_of_other_targets_are_refused(runs: list[Path], tmp_path: Path) -> None:
    for name in ("run.json", "metrics.json", "recipe.yaml"):
        (tmp_path / name).write_bytes((runs[0] / name).read_bytes())
    data = json.loads((runs[0] / "data.json").read_text())
    data["target"]["column"] = "flu"
    (tmp_path / "data.json").write_text(json.dumps(data))
    with pytest.raises(FuselineError, match=r"different targets \(first: covid; first: flu\)"):
        compare([runs[0], tmp_path])


def test_one_run_or_one_without_metrics_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="at least two"):
        compare(runs[:1])
    for name in ("run.json", "data.json", "recipe.yaml"):
        (tmp_path / name).write_bytes((runs[0] / name).read_bytes())
    with pytest.raises(FuselineError, match="holds no metrics yet"):
        compare([runs[0], tmp_path])


def test_other_test_rows_are_called_out(runs: list[Path], tmp_path: Path) -> None:
    import polars as pl

    for name in ("run.json", "data.json", "recipe.yaml", "metrics.json"):
        (tmp_path / name).write_bytes((runs[0] / name).read_bytes())
    frame = pl.read_parquet(runs[0] / "predictions.parquet")
    frame.with_columns(pl.col("row") + 1).write_parquet(tmp_path / "predictions.parquet")
    assert "not tested on the same rows" in " ".join(compare([runs[0], tmp_path]).cautions)


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
