"""One training: reduced precision, a loss that explodes, Ctrl-C."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest

import fuseline
from fuseline import api
from fuseline.errors import FuselineError
from fuseline.lab.training.callbacks import Keeper

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}


def recipe(table: Path, **training: Any) -> dict[str, Any]:
    inputs = {"vitals": made.INPUTS["vitals"]}
    base = {"epochs": 2, "batch_size": 8, "precision": "float32", "loggers": []}
    return made.recipe(table, inputs=inputs, training={**base, **training}, evaluation=LEAN)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_with_clipping(precision: str, tmp_path: Path) -> None:
    run = api.train(recipe(made.make_table(tmp_path), precision=precision), out=tmp_path / "run", quiet=True)
    assert run.record["precision"] == precision
    assert np.isfinite(run.score("log_loss"))


def test_a_loss_that_explodes_is_an_error_in_words(tmp_path: Path) -> None:
    wild = recipe(made.make_table(tmp_path), learning_rate=1e9, clip=1e9)
    with pytest.raises(FuselineError, match=r"learning_rate") as caught:
        api.train(wild, out=tmp_path / "run", quiet=True)
    assert caught.value.code == "diverged"


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    """Raise the signal once, at the end of the `when`-th interval that is trained."""
    ends: list[int] = []
    plain = Keeper.on_train_epoch_end

    def end(self: Keeper, *args: Any) -> None:
        plain(self, *args)
        ends.append(1)
        if len(ends) == when:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Keeper, "on_train_epoch_end", end)


def test_ctrl_c_is_a_keyboard_interrupt_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = recipe(made.make_table(tmp_path))
    # A library that some test loaded before may have put the system's own handler there, which ends the process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT)
    press_ctrl_c(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        api.train(table, out=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err
    run = fuseline.resume(tmp_path / "run", quiet=True)
    assert run.metrics == api.train(table, out=tmp_path / "whole", quiet=True).metrics


@pytest.mark.parametrize("interval_steps", [1, 3, 4])
def test_intervals_that_do_not_divide_the_steps(interval_steps: int, tmp_path: Path) -> None:
    """As in every table of more rows than an interval has steps: each interval is validated, the last one too."""
    table = made.make_table(tmp_path, 60)
    run = api.train(recipe(table, batch_size=6, interval_steps=interval_steps), out=tmp_path / "run", quiet=True)
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    steps = [int(float(line.split(",")[1])) for line in history[1:]]
    assert len(history) - 1 == -(-10 // interval_steps)
    assert 10 <= steps[-1] < 10 + len(steps)
    assert np.isfinite(run.score("log_loss"))
