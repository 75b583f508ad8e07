"""A search from a run to its chosen package, on the tiny clinic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import served
from typer.testing import CliRunner

import fuseline
from fuseline.cli.app import app
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.compress.subject import open_subject, table_of
from fuseline.lab.compress.workshop import Workshop
from fuseline.lab.training.cache import Cache
from fuseline.package import read_package
from fuseline.progress import Silent

OPTIONS = {"epochs": 1, "max_trials": 4, "threads": 1, "quiet": True}


@pytest.fixture(scope="module")
def run(package: Path) -> Path:
    """The training run behind the tiny package."""
    return package.parent / "run-clinic-0" / "clinic"


@pytest.fixture(scope="module")
def done(run: Path, tmp_path_factory: pytest.TempPathFactory) -> fuseline.api.Compressed:
    return fuseline.compress(run, max_drop=60.0, out=tmp_path_factory.mktemp("search"), **OPTIONS)


def test_a_package_becomes_its_model_again(run: Path) -> None:
    table = table_of(run)
    assert table is not None
    subject = open_subject(read_package(run), Table.open(table), cache=Cache(64), voice=Silent())
    parts = json.loads((run / "run.json").read_text(encoding="utf-8"))["parts"]
    assert {p: len(subject.prepared.rows(p)) for p in ("train", "val", "test")} == {
        p: parts[p] for p in ("train", "val", "test")
    }
    assert not subject.model.training


def test_another_model_than_the_package_says_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FuselineError) as error:
        open_subject(
            read_package(run),
            Table.open(pl.DataFrame({"note": ["a"], "sick": ["yes"]})),
            cache=Cache(8),
            voice=Silent(),
        )
    assert error.value.code == "missing_column"


def test_what_a_search_leaves(done: fuseline.api.Compressed) -> None:
    assert done.met
    assert done.result["status"] == "met"
    assert 2 <= len(done.result["trials"]) <= 4
    base, chosen = done.result["trials"][0], done.chosen
    assert base["drop"]["value"] == 0
    assert chosen["size_bytes"] <= base["size_bytes"]
    assert "<html" in done.report.read_text(encoding="utf-8")
    package = read_package(done.package)
    compression = package.read_json("compression.json")
    assert compression["parent"]["version"]
    assert compression["words"] == chosen["words"] if chosen is not base else True
    metrics = package.read_json("metrics.json")
    assert metrics["parts"]["test"]["rows"] == done.result["final"]["rows"]
    assert package.read_json("parity.json")["rows"] > 0
    answers = done.load().predict(served.rows(6))
    assert all(a.error is None and a.value in ("yes", "no") for a in answers)
    alone = [done.load().predict([row])[0] for row in served.rows(6)]
    for one, many in zip(alone, answers, strict=True):
        assert one.probabilities is not None
        assert many.probabilities is not None
        assert one.probabilities["yes"] == pytest.approx(many.probabilities["yes"], abs=1e-3)


def test_the_same_command_again_makes_no_trial_twice(done: fuseline.api.Compressed, run: Path) -> None:
    def times() -> dict[str, float]:
        return {p.parent.name: p.stat().st_mtime for p in (done.folder / "trials").glob("*/trial.json")}

    before = times()
    again = fuseline.compress(run, max_drop=60.0, out=done.folder, **OPTIONS)
    assert again.result["chosen"] == done.result["chosen"]
    assert times() == before


def test_another_search_in_the_same_folder_is_refused(done: fuseline.api.Compressed, run: Path) -> None:
    with pytest.raises(FuselineError) as error:
        fuseline.compress(run, max_drop=60.0, out=done.folder, **{**OPTIONS, "epochs": 2})
    assert error.value.code == "changed"


def test_an_interrupted_search_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = Workshop.trial

    def interrupted(self: Workshop, candidate: object) -> dict[str, object]:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(self.key(candidate))  # type: ignore[arg-type]
        return real(self, candidate)  # type: ignore[arg-type]

    monkeypatch.setattr(Workshop, "trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fuseline.compress(run, max_drop=60.0, out=tmp_path, **OPTIONS)
    monkeypatch.setattr(Workshop, "trial", real)
    kept = {key: (tmp_path / "trials" / key / "trial.json").read_bytes() for key in made}
    found = fuseline.compress(run, max_drop=60.0, out=tmp_path, **OPTIONS)
    assert {key: (tmp_path / "trials" / key / "trial.json").read_bytes() for key in made} == kept
    assert [t["key"] for t in found.result["trials"]][:2] == made


def test_a_compressed_package_of_integers_cannot_be_compressed_again(
    done: fuseline.api.Compressed, run: Path, tmp_path: Path
) -> None:
    integers = next(
        t["key"]
        for t in done.result["trials"]
        if not t["failed"] and "int8" in t["candidate"]["numbers"]["precision"].values()
    )
    with pytest.raises(FuselineError) as error:
        fuseline.compress(
            done.folder / "trials" / integers / "model.fuse", table_of(run), max_drop=1.0, out=tmp_path, quiet=True
        )
    assert error.value.code == "already_quantised"


def test_a_budget_that_cannot_be_met_ends_with_its_own_status(run: Path, tmp_path: Path) -> None:
    command = ["compress", str(run), "--max-size", "1kb", "--max-drop", "60", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--trials", "2", "--epochs", "1", "--threads", "1", "--quiet"])
    assert result.exit_code == 4, result.output
    assert "the budget is not met" in result.output
    assert "MB > 0.001 MB" in result.output
    assert (tmp_path / "out" / "model.fuse" / "manifest.json").exists()
    status = json.loads((tmp_path / "out" / "compress.json").read_text(encoding="utf-8"))
    assert status["status"] == "not_met"
    assert status["obstacles"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "bad_budget"),
        (["--max-latency", "soon"], "bad_budget"),
        (["--max-drop", "0.5", "--metric", "beauty"], "bad_metric"),
        (["--max-drop", "0.5", "--data", "nowhere.csv"], "no_such_file"),
        (["--max-drop", "0.5", "--student", "nowhere.yaml"], "no_such_file"),
        (["--max-drop", "0.5", "--teacher", "nowhere.fuse"], "no_such_file"),
    ],
)
def test_bad_usage_is_an_error_in_words(run: Path, tmp_path: Path, arguments: list[str], code: str) -> None:
    result = CliRunner().invoke(app, ["compress", str(run), "--quiet", "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2, result.output
    assert code in result.output + str(result.stderr)


def test_a_student_with_fewer_inputs_is_taught_and_tried(run: Path, tmp_path: Path) -> None:
    recipe = read_package(run).recipe
    data = recipe.model_dump()
    data["inputs"] = {k: v for k, v in data["inputs"].items() if k in ("note", "vitals")}
    data["training"] |= {"epochs": 1}
    found = fuseline.compress(
        run,
        max_drop=100.0,
        out=tmp_path,
        students={"without media": fuseline.Recipe.model_validate(data)},
        **{**OPTIONS, "max_trials": 12},
    )
    tried = [t for t in found.result["trials"] if t["candidate"]["student"]]
    assert tried
    assert tried[0]["failed"] is None, tried[0]["failed"]
    package = read_package(found.folder / "trials" / tried[0]["key"] / "model.fuse")
    assert set(package.recipe.inputs) == {"note", "vitals"}
    assert np.isfinite(tried[0]["drop"]["value"])
