"""`fuseline demo`: a made clinic, from table to answers, with the best possible accuracy beside the reached one."""

from __future__ import annotations

import csv
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table as Grid

from fuseline.demo import DemoTruth, generate
from fuseline.errors import FuselineError
from fuseline.progress import clock

NAME = "demo"

CHANGES: dict[str, dict[str, Any]] = {
    "split": {"val": 0.15, "test": 0.25},
    "fusion": {"kind": "concat", "width": 64, "modality_dropout": 0.3},
    "training": {"epochs": 24, "batch_size": 32, "precision": "float32", "metric": "log_loss", "patience": 24},
    "evaluation": {"bootstrap": 300},
}
CELLS: dict[str, dict[str, Any]] = {"audio": {"sample_rate": 8000}}
ENCODERS: dict[str, dict[str, Any]] = {
    "image": {"size": 64, "channels": [16, 32, 64, 64], "augment": 0.0},
    "text": {"width": 64, "layers": 0},
    "tabular": {"layers": 0, "feature_dropout": 0.15},
}


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the clinic and its model")] = Path("demo"),
    rows: Annotated[int, typer.Option("--rows", min=60, help="visits to make")] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="another seed, another clinic")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Make a clinic, learn it, evaluate, package and predict: a few minutes on two cores.

    Its pictures, notes, breath sounds and vitals are drawn from a stated model, a third of the cells absent, so the
    best accuracy that any model can reach is known. All of its data is made.
    """
    from fuseline import api
    from fuseline.cli.show import show_metrics

    console = Console(highlight=False)
    started = time.monotonic()
    if out.exists() and any(out.iterdir()) and not (out / "truth.json").exists():
        raise FuselineError("folder_not_empty", f"{out} holds other files", "choose a new folder with --out")
    shutil.rmtree(out / "run", ignore_errors=True)

    console.rule("1 · a clinic is made (no patient in it exists)", align="left")
    truth = generate(out, rows, seed)
    shares = ", ".join(f"{m} {1 - truth.present[m].mean():.0%}" for m in truth.present)
    console.print(f"{rows} visits in {out / 'table.csv'}; absent: {shares}", markup=False)

    console.rule("2 · init: what is in the table?", align="left")
    text, inferred = api.init(out / "table.csv", "diagnosis")
    (out / "draft.yaml").write_text(text, encoding="utf-8")
    for column in inferred.columns:
        console.print(f"  {column.name:<12}{column.kind:<12}{column.reason}", markup=False)
    recipe = adapt(yaml.safe_load(text))
    (out / "recipe.yaml").write_text(HEAD + yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")

    console.rule("3 · train, evaluate, package", align="left")
    run = api.train(out / "recipe.yaml", out=out / "run", quiet=quiet)
    metrics = run.metrics
    show_metrics(metrics, console)

    console.rule("4 · the known best beside what was reached", align="left")
    console.print(_beside(metrics, truth, rows_tested(run.folder)))
    console.print(_verdict(metrics, truth, rows_tested(run.folder)), markup=False)

    console.rule("5 · predict, with and without the picture", align="left")
    console.print(_answers(run.load(), out, truth, rows_tested(run.folder)))

    console.rule("6 · what to look at next", align="left")
    console.print(
        f"{run.report}    the report: open it in a browser\n"
        f"{run.package / 'README.md'}    the model card, in the package that runs without torch\n"
        f"{out / 'recipe.yaml'}    the recipe that was trained; draft.yaml beside it is what `fuseline init` wrote\n"
        f"{out / 'truth.json'}    the stated model that the clinic was drawn from\n"
        f"with a table of your own: fuseline init TABLE.csv --target COLUMN\n\n"
        f"All data here is made: it says how the software behaves and nothing about medicine. "
        f"Time: {clock(time.monotonic() - started)}.",
        markup=False,
        soft_wrap=True,
    )


HEAD = """# What `fuseline init` drafted (see draft.yaml), changed for this made clinic:
# small from-scratch encoders, since rows, drawings, sounds and notes are few and small; more test rows; inputs hidden
# more often while training; numbers that repeat on every machine (float32); the visit's date left out: it says nothing.
"""


def adapt(draft: dict[str, Any]) -> dict[str, Any]:
    """The drafted recipe with the demo's changes; its one tabular input is named `vitals`."""
    inputs: dict[str, Any] = {}
    for name, spec in draft["inputs"].items():
        kind = spec["modality"]
        spec = {**spec, **CELLS.get(kind, {}), "encoder": {"kind": "small", **ENCODERS.get(kind, {})}}
        if kind == "tabular":
            name, spec["columns"] = "vitals", {c: k for c, k in spec["columns"].items() if c != "visited"}
        inputs[name] = spec
    out = {**draft, "inputs": inputs, "table": {**(draft.get("table") or {}), "path": "table.csv"}}
    return out | {key: {**(draft.get(key) or {}), **change} for key, change in CHANGES.items()}


def rows_tested(folder: Path) -> list[int]:
    """The test part's rows of the table, from the run's predictions."""
    import polars as pl

    frame = pl.read_parquet(folder / "predictions.parquet", columns=["row", "part"])
    return [int(r) for r in frame.filter(pl.col("part") == "test")["row"]]


def _beside(metrics: dict[str, Any], truth: DemoTruth, rows: list[int]) -> Grid:
    grid = Grid("inputs seen", "test rows that have one", "accuracy reached", "known best on these rows")
    for entry in metrics["degradation"]:
        some = [r for r in rows if any(truth.present[m][r] for m in entry["present"])]
        best = truth.bayes_accuracy(entry["present"], some)
        reached = entry["metrics"]["accuracy"]["value"]
        grid.add_row(", ".join(entry["present"]), str(len(some)), f"{reached:.3f}", f"{best.reached:.3f}")
    return grid


def _verdict(metrics: dict[str, Any], truth: DemoTruth, rows: list[int]) -> str:
    reached = metrics["parts"]["test"]["metrics"]["accuracy"]["value"]
    best = truth.bayes_accuracy(rows=rows)
    alone = {
        e["present"][0]: e["metrics"]["accuracy"]["value"] for e in metrics["degradation"] if len(e["present"]) == 1
    }
    name = max(alone, key=lambda m: alone[m])
    return (
        f"fused {reached:.3f} · known best {best.reached:.3f} on these {best.rows} rows "
        f"({100 * (best.reached - reached):+.1f} points away; {best.expected:.3f} expected on average) · "
        f"best single input {alone[name]:.3f} ({name}, on the rows that have it)"
    )


def _answers(predictor: Any, folder: Path, truth: DemoTruth, rows: list[int]) -> Grid:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    grid = Grid("row", "really", "picture", "answer", "confidence", "best judge's", "based on")
    shown = [r for r in rows if truth.present["picture"][r] and truth.present["note"][r]][:3]
    for r in shown:
        whole = {k: v or None for k, v in cells[r].items()}
        for word, row, seen in (
            ("seen", whole, truth.present),
            ("absent", whole | {"picture": None}, [m for m in truth.present if m != "picture"]),
        ):
            [answer] = predictor.predict([row], media=folder)
            if answer.error is not None:
                raise answer.error
            sure = max(answer.probabilities.values())
            ideal = float(truth.posterior(list(seen), [r]).max())
            based = ", ".join(answer.used) or "nothing"
            grid.add_row(str(r), cells[r]["diagnosis"], word, str(answer.value), f"{sure:.2f}", f"{ideal:.2f}", based)
    return grid
