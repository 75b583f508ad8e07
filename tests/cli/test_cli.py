"""The verbs, from a table to answers, and what they say when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import made
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

from fuseline.cli import app

VERBS = {
    "init": {"--force", "--history", "--horizon", "--left", "--out", "--right", "--target"},
    "tune": {
        "--cache",
        "--engine",
        "--out",
        "--quiet",
        "--resume",
        "--table",
        "--time",
        "--trials",
        "--until",
        "--worker",
        "--workers",
    },
    "train": {
        "--cache",
        "--engine",
        "--init",
        "--on-error",
        "--out",
        "--quiet",
        "--resume",
        "--strategy",
        "--target",
        "--workers",
    },
    "pretrain": {"--cache", "--data", "--epochs", "--on-error", "--out", "--quiet", "--resume"},
    "evaluate": {"--absent", "--bootstrap", "--out", "--quiet", "--robustness", "--rows", "--subsets"},
    "predict": {"--absent", "--batch-size", "--out", "--quiet"},
    "index": {"--absent", "--batch-size", "--id", "--keep", "--out", "--quiet", "--side"},
    "search": {"--cell", "--exact", "--json"},
    "compare": {"--out"},
    "batch": {"--absent", "--batch-size", "--engine", "--quiet", "--resume", "--shard-rows", "--workers"},
    "compress": {
        "--data",
        "--epochs",
        "--max-drop",
        "--max-latency",
        "--max-size",
        "--metric",
        "--minutes",
        "--out",
        "--quiet",
        "--seed",
        "--student",
        "--teacher",
        "--threads",
        "--trials",
    },
    "profile": {"--backend", "--batch", "--data", "--json", "--quiet", "--rows", "--threads", "--top"},
    "export": {"--data", "--embed", "--external-data", "--force", "--out", "--quiet", "--rows", "--threads", "--to"},
    "demo": {"--out", "--quiet", "--rows", "--seed"},
    "serve": {
        "--admin-port",
        "--batch",
        "--canary",
        "--console",
        "--deadline-ms",
        "--downscale-seconds",
        "--drain-seconds",
        "--drift",
        "--drift-ignore",
        "--engine",
        "--grpc-port",
        "--host",
        "--index",
        "--json-logs",
        "--keys",
        "--labels",
        "--max-body-mb",
        "--max-explain-rows",
        "--max-replicas",
        "--max-rows",
        "--min-replicas",
        "--objective-ms",
        "--port",
        "--queue",
        "--ray-address",
        "--record",
        "--record-mb",
        "--record-share",
        "--redact",
        "--replica-cpus",
        "--shadow",
        "--target-ongoing",
        "--threads",
        "--traces",
        "--upscale-seconds",
        "--wait-ms",
        "--watch-seconds",
        "--workers",
    },
    "keys": {"--file", "--per-minute"},
    "drift": {"--alpha", "--ignore", "--labels", "--out", "--shadow", "--since"},
    "deploy": {
        "--batch",
        "--cpu",
        "--drain-seconds",
        "--force",
        "--grpc",
        "--image",
        "--keys",
        "--max-replicas",
        "--memory",
        "--name",
        "--namespace",
        "--objective-ms",
        "--out",
        "--queue",
        "--replicas",
        "--wheel",
        "--workers",
    },
    "cache": {"--clear"},
    "monitor": set(),
    "explain": {
        "--change",
        "--gradients",
        "--grid",
        "--html",
        "--index",
        "--input",
        "--inside",
        "--json",
        "--most-outputs",
        "--most-parts",
        "--nearest",
        "--of",
        "--quiet",
        "--rows",
    },
    "suggest": {
        "--allow-copies",
        "--allow-new-classes",
        "--batch-size",
        "--by",
        "--copy-media",
        "--force",
        "--id",
        "--into",
        "--labelled",
        "--measure",
        "--out",
        "--quiet",
        "--rest",
        "--seed",
        "--take",
    },
    "ensemble": {"--quiet", "--table"},
}


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    table = made.make_table(folder, 48)
    inputs = {k: made.INPUTS[k] for k in ("note", "vitals")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(made.recipe(table, inputs=inputs)))
    result = call("train", folder / "recipe.yaml", "-o", folder / "run", "-q")
    assert result.exit_code == 0, result.output
    assert "when inputs are absent" in result.output
    return folder


def test_every_verb_and_option_is_known_and_explained() -> None:
    import typer.main

    group = typer.main.get_command(app)
    assert set(group.commands) == set(VERBS)  # type: ignore[attr-defined]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        options = {o for p in command.params for o in p.opts if o.startswith("--")} - {"--help"}
        assert options == VERBS[name], name
        assert command.help, name
        assert call(name, "--help").exit_code == 0


def test_init_writes_a_recipe_that_trains(tmp_path: Path) -> None:
    table = made.make_table(tmp_path, 40)
    result = call("init", table, "-t", "sick", "-o", tmp_path / "drafted.yaml")
    assert result.exit_code == 0, result.output
    assert "patient" in result.output
    drafted = yaml.safe_load((tmp_path / "drafted.yaml").read_text())
    assert drafted["task"]["target"] == "sick"
    assert call("init", table, "-t", "sick", "-o", tmp_path / "drafted.yaml").exit_code == 2
    assert call("init", table, "-t", "sick", "-o", tmp_path / "drafted.yaml", "--force").exit_code == 0


def test_a_header_is_shown_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("[red]age[/],y\n" + "".join(f"{i * 37 % 11}.5,{'ab'[i % 2]}\n" for i in range(30)))
    result = call("init", tmp_path / "t.csv", "-t", "y", "-o", tmp_path / "t.yaml")
    assert result.exit_code == 0, result.output
    assert "[red]age[/]" in result.output


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predict_writes_each_kind(run: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"answers.{ending}"
    result = call("predict", run / "run", run / "table.csv", "-o", out, "-q")
    assert result.exit_code == 0, result.output
    read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[ending]
    frame = read(out)
    assert frame["row"].to_list() == list(range(48))
    assert set(frame["value"]) <= {"yes", "no"}


def test_a_broken_row_has_its_reason_and_the_status_says_so(run: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(run / "table.csv", infer_schema=False)
    ages = frame["age"].to_list()
    ages[5] = "old"
    frame.with_columns(age=pl.Series(ages)).write_csv(tmp_path / "new.csv")
    result = call("predict", run / "run/model.fuse", tmp_path / "new.csv", "-o", tmp_path / "a.jsonl", "-q")
    assert result.exit_code == 1
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines if "error" in line] == [5]
    assert lines[5]["error"]["column"] == "age"


def test_a_lost_column_names_the_closest_and_may_be_called_absent(run: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(run / "table.csv", infer_schema=False).rename({"note": "notes"})
    frame.write_csv(tmp_path / "new.csv")
    words = ("predict", run / "run", tmp_path / "new.csv", "-o", tmp_path / "a.csv", "-q")
    result = call(*words)
    assert result.exit_code == 2
    assert "did you mean 'notes'" in result.output
    assert call(*words, "--absent", "note").exit_code == 0
    assert "note" in pl.read_csv(tmp_path / "a.csv")["absent"][0]
    assert call(*words, "--absent", "nothing").exit_code == 2


def test_evaluate_and_compare(run: Path, tmp_path: Path) -> None:
    result = call("evaluate", run / "run", run / "table.csv", "-o", tmp_path / "m.json", "--bootstrap", "20", "-q")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["parts"]["test"]["rows"] == 48
    assert len(metrics["degradation"]) == 3
    result = call("compare", run / "run", run / "run", "-o", tmp_path / "compare.html")
    assert result.exit_code == 0, result.output
    assert "AUROC" in result.output
    assert "run (run) #2" in result.output
    assert (tmp_path / "compare.html").is_file()


def test_quarantine_puts_broken_rows_aside(tmp_path: Path) -> None:
    table = made.make_table(tmp_path, 48)
    frame = pl.read_csv(table, infer_schema=False)
    ages = frame["age"].to_list()
    ages[7] = "unknown"
    frame.with_columns(age=pl.Series(ages)).write_csv(table)
    inputs = {k: made.INPUTS[k] for k in ("note", "vitals")}
    lean = {"bootstrap": 0, "export": False, "report": False}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(made.recipe(table, inputs=inputs, evaluation=lean)))
    result = call("train", tmp_path / "r.yaml", "-o", tmp_path / "a", "-q")
    assert result.exit_code == 2
    assert "row 7" in result.output
    result = call("train", tmp_path / "r.yaml", "-o", tmp_path / "b", "-q", "--on-error", "quarantine")
    assert result.exit_code == 0, result.output
    put_aside = pl.read_csv(tmp_path / "b/quarantine.csv", infer_schema=False)
    assert put_aside["_row"].to_list() == ["7"]
    assert "unknown" in put_aside["_reason"][0]


@pytest.mark.parametrize(
    "words", [("train",), ("train", "x.yaml"), ("predict", "none.fuse", "t.csv", "-o", "o.csv"), ("train", "t.csv")]
)
def test_what_is_not_there_is_an_error_in_words(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert "error" in result.output
    assert "Traceback" not in result.output


def test_parts_given_by_files(tmp_path: Path) -> None:
    table = made.make_table(tmp_path, 60)
    frame = pl.read_csv(table, infer_schema=False)
    frame[:40].write_csv(tmp_path / "train.csv")
    frame[40:].write_csv(tmp_path / "test.csv")
    inputs = {k: made.INPUTS[k] for k in ("picture", "vitals")}
    recipe = made.recipe(inputs=inputs, evaluation={"bootstrap": 0, "export": False, "report": False})
    recipe |= {"table": {"path": "train.csv"}, "split": {"kind": "given", "test_path": "test.csv"}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    result = call("train", tmp_path / "r.yaml", "-o", tmp_path / "run", "-q")
    assert result.exit_code == 0, result.output
    parts = json.loads((tmp_path / "run/run.json").read_text())["parts"]
    assert parts["test"] == 20
    assert parts["train"] + parts["val"] == 40
