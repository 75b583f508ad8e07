"""A run's folder as it may be found: whole, half written, or none at all."""

import json
import shutil
from pathlib import Path

import pytest

from fuseline.errors import FuselineError
from fuseline.lab.report.read import FILES, Estimate, number, read_run


def test_reads_a_whole_run(clinic: Path) -> None:
    files = read_run(clinic)
    assert (files.name, files.task, files.target, files.metric) == ("clinic", "classification", "covid", "auroc")
    assert [p.name for p in files.parts] == ["val", "test"]
    assert files.part("test").rows == 60
    assert files.package_bytes == 1_500_000
    assert len(files.history) == 13
    assert not files.absent
    assert not files.broken


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1, 2]", b"null", b"[" * 100_000])
@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_named_and_the_others_are_read(
    clinic: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    run = Path(shutil.copytree(clinic, tmp_path / "run"))
    (run / name).write_bytes(content)
    files = read_run(run)
    assert len(files.inputs) == (0 if name == "run.json" else 4)
    if content == b"\xff\xfe":
        assert files.broken == [name]


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FuselineError) as caught:
            read_run(folder)
        assert caught.value.code == "no_such_run"


def test_undefined_metrics_are_none() -> None:
    for item in (None, float("nan"), {"value": None}, {"value": float("inf")}, "0.5", True, {"value": [1]}):
        assert Estimate.read("auroc", item).value is None
    assert Estimate.read("mae", {"value": 2, "higher_is_better": False}) == Estimate("mae", 2.0, None, None, False)
    assert number(True) is None


def test_a_cross_validation_is_read_as_the_mean_of_its_folds(write_folds, tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "cv")
    files = read_run(folder)
    stated = json.loads((folder / "folds.json").read_text())
    assert files.main.name == "folds"
    assert files.main.metrics["auroc"].value == pytest.approx(stated["mean"]["auroc"])
    values = [f["metrics"]["log_loss"] for f in stated["folds"]]
    found = files.main.metrics["log_loss"]
    assert (found.low, found.high, found.higher_is_better) == (min(values), max(values), False)
    assert files.main.rows == 48
    assert files.run["seconds"]["train"] == pytest.approx(2 * 68.4)
