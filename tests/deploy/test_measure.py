"""A real package, really measured, and the verb over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import served
import typer
import yaml
from deploy.packages import make
from deploy.schemas import check
from typer.testing import CliRunner

import fuseline
from fuseline.cli import deploy as verb
from fuseline.deploy import measure
from fuseline.deploy.heaviest import heaviest_row
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.package(tmp_path_factory.mktemp("clinic"))


def test_the_heaviest_row_is_at_every_inputs_largest_size(clinic: Path) -> None:
    predictor = fuseline.load(clinic)
    row = heaviest_row(predictor.rows)
    parsed = predictor.rows.parse(row, MediaRoot())
    assert parsed.error is None
    assert np.shape(parsed.values["note"])[0] == predictor.rows.modalities["note"].lengths["T"][1]
    assert np.shape(parsed.values["sound"])[0] == 8000  # one second at 8 kHz
    assert parsed.values["picture"] is not None


def test_measuring_gives_figures_that_follow_the_batch(clinic: Path) -> None:
    small, large = measure([clinic], 1, 1), measure([clinic], 64, 1)
    for found in (small, large):
        assert 20 * 2**20 < found.base_bytes < 2**30
        assert 0 < found.load_seconds < 120
        assert found.cores == 1
    assert small.loaded_bytes > 0
    assert large.batch_seconds > 2 * small.batch_seconds
    assert large.peak_bytes > small.peak_bytes
    assert large.rows_per_second == 64 / large.batch_seconds


def test_a_graph_that_does_not_run_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="could not be measured") as error:
        measure([make(tmp_path / "broken.fuse")], 2)
    assert error.value.code == "bad_package"
    assert "Traceback" not in str(error.value)


def test_the_verb_writes_a_deployment(clinic: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command(verb.NAME)(verb.command)
    out = tmp_path / "deploy"
    arguments = [str(clinic), "-o", str(out), "--namespace", "clinics", "--wheel", "fuseline==0.1.0", "--cpu", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "clinic.fuse" in done.output
    deployment = yaml.safe_load((out / "kubernetes/deployment.yaml").read_text())
    check(deployment)
    memory = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert 256 <= int(memory.removesuffix("Mi")) <= 4096
    assert '"fuseline[serve]==0.1.0"' in (out / "image/Dockerfile").read_text()
