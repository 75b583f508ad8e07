"""From an empty folder to a served, watched model of a clinic. See `python -m examples.clinic --help`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import polars as pl
import uvicorn
import yaml

import fuseline
from examples.clinic.app import Clinic, make_app
from examples.clinic.cases import CASES, Cases
from examples.clinic.data import TABLE, bring
from examples.clinic.measure import measure
from examples.clinic.server import EXPLAIN_SECONDS, NEAREST, Server
from examples.stages import Stages, command_of, ended_in_words, model_server, trained, watch_files

HERE = Path(__file__).parent
NAME = "clinic"
TRAIN = "train.csv"
EXPLAINED = "1024"
"""most answers of a request for an explanation"""


def recipe_of(folder: Path, told: dict[str, Any], *, epochs: int | None = None, small: bool = False) -> Path:
    """The system's own recipe with the folder's paths and columns in it; written beside the data, to be read.

    `told`: what :func:`data.bring` gave. `small`: encoders from scratch, of little pictures, for a quick look.
    """
    recipe = yaml.safe_load((HERE / "clinic.yaml").read_text(encoding="utf-8"))
    path = (folder / "data" / TABLE).resolve()
    recipe["table"]["path"] = str(path)
    there = pl.read_csv(path, n_rows=0).columns
    for spec in recipe["inputs"].values():
        if "columns" in spec:
            spec["columns"] = {c: kind for c, kind in spec["columns"].items() if c in there}
    for task in ("finding", "severity"):
        recipe["task"]["tasks"][task]["target"] = told[task]
    if small:
        recipe["inputs"]["xray"]["encoder"] = {"kind": "small", "size": 64}
        recipe["inputs"]["report"]["encoder"] = {"kind": "small", "width": 32}
    if epochs is not None:
        recipe["training"]["epochs"] = epochs
    out = folder / "clinic.yaml"
    out.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return out


def train(folder: Path, told: dict[str, Any], *, epochs: int | None, quiet: bool) -> dict[str, Any]:
    run = trained(lambda: recipe_of(folder, told, epochs=epochs), folder / "runs" / NAME, quiet=quiet)
    metrics = run.metrics["parts"]["test"]["metrics"]
    return {k: m["value"] for k, m in metrics.items()}


def remember(folder: Path, *, quiet: bool) -> dict[str, int]:
    """An index of the training rows, for the nearest cases. It belongs beside the model, not into it: it names
    patients' pictures."""
    held_out = pl.read_parquet(folder / "runs" / NAME / "predictions.parquet", columns=["row"])["row"]
    table = pl.read_csv(folder / "data" / TABLE, infer_schema_length=None).with_row_index("row")
    train = folder / "data" / TRAIN
    table.filter(~pl.col("row").cast(pl.Int64).is_in(held_out.to_list())).write_csv(train)
    return fuseline.index(folder / "runs" / NAME, train, folder / "nearest", id="row", keep=["row"], quiet=quiet)


def arguments(given: list[str] | None) -> argparse.Namespace:
    about = (
        "X-ray, note, vitals and person to a finding, a severity and lung boxes: data, training, measuring, serving, "
        "a page that says why and how sure. No medical device."
    )
    parser = command_of(
        "clinic",
        about,
        data="folder with table.csv and images/ (chest-xray); default: made",
        port=8092,
        trainings="the training",
    )
    parser.add_argument("--visits", type=int, default=900, help="of a made clinic")
    return parser.parse_args(given)


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """All stages up to serving. What each said."""
    stages, out = Stages(args.out), args.out
    told = stages.do("data", lambda: bring(out / "data", args.data, visits=args.visits))
    return {
        "data": told,
        "test": stages.do("trained", lambda: train(out, told, epochs=args.epochs, quiet=args.quiet)),
        "nearest": stages.do("remembered", lambda: remember(out, quiet=args.quiet)),
        "measured": stages.do("measured", lambda: measure(out, out / "runs" / NAME)),
        "watched": watch_files(out, NAME, HERE / "rules", model_port=args.model_port, port=args.port),
    }


def main(given: list[str] | None = None) -> None:
    args = arguments(given)
    with ended_in_words(args.out):
        found = prepare(args)
        print(json.dumps({k: found[k] for k in ("data", "test", "measured")}, indent=1, ensure_ascii=False))
        if args.no_serve:
            return
        package, record = args.out / "runs" / NAME / "model.fuse", args.out / "recorded"
        options = ["--record", str(record), "--index", f"{NEAREST}={args.out / 'nearest'}"]
        options += ["--max-explain-rows", EXPLAINED, "--deadline-ms", str(round(1e3 * EXPLAIN_SECONDS))]
        with model_server({NAME: package}, args.out, *options, port=args.model_port) as url:
            clinic = Clinic(Cases.of(args.out, found["data"], CASES), Server(url, NAME))
            print(f"the page: http://127.0.0.1:{args.port}/   the model: {url}/   Ctrl-C ends both")
            print(f"has the world changed?   fuseline drift {package} {record}")
            uvicorn.run(make_app(clinic), host="127.0.0.1", port=args.port, log_level="warning")
