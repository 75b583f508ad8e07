"""From an empty folder to a served, watched dialogue. See `python -m examples.interaction --help`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import polars as pl
import uvicorn
import yaml

import fuseline
from examples.interaction import measure
from examples.interaction.app import Dialogue, make_app
from examples.interaction.data import REPLIES, TRIPLES, TURNS, bring
from examples.interaction.facts import Facts
from examples.interaction.models import REPLY, UNDERSTAND, Served
from examples.stages import Stages, command_of, ended_in_words, model_server, trained, watch_files

HERE = Path(__file__).parent
TABLES = {UNDERSTAND: TURNS, REPLY: REPLIES}
EXAMPLES = 40
"""test turns that the page may take"""


def recipe_of(name: str, folder: Path, *, epochs: int | None) -> Path:
    """The system's own recipe with the table's path in it; written beside the data, to be read and changed."""
    recipe = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    recipe["table"]["path"] = str((folder / "data" / TABLES[name]).resolve())
    if epochs is not None:
        recipe["training"]["epochs"] = epochs
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def train(name: str, folder: Path, *, epochs: int | None, quiet: bool) -> dict[str, Any]:
    run = trained(lambda: recipe_of(name, folder, epochs=epochs), folder / "runs" / name, quiet=quiet)
    test = run.metrics["parts"]["test"]
    wanted = ("emotion.accuracy", "emotion.macro_f1", "intent.accuracy", "intent.macro_f1", "exact", "bleu")
    said = {k: test["metrics"][k]["value"] for k in wanted if k in test["metrics"]}
    if name == UNDERSTAND:
        said["subsets"] = measure.subsets(run.metrics["degradation"])
    return said


def measured(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    understand, reply = (fuseline.load(folder / "runs" / n) for n in (UNDERSTAND, REPLY))
    table, rows = measure.turns_of(folder / "data")
    return {
        "subsets": told["subsets"],
        "acted_on": measure.asked(understand, table, rows),
        "wordings": measure.wordings(understand, table),
        "replies": measure.replies(reply, folder / "data"),
    }


def examples_of(folder: Path, most: int = EXAMPLES) -> list[dict[str, Any]]:
    """Test turns that have all three inputs."""
    table = pl.read_csv(folder / "data" / TURNS).filter(pl.col("part") == "test").drop_nulls(measure.INPUTS)
    rows = table.head(most).to_dicts()
    return [{**row, "speech": str(folder / "data" / row["speech"])} for row in rows]


def dialogue_of(folder: Path, url: str, found: dict[str, Any]) -> Dialogue:
    about = {"data": found["data"], "measured": found["measured"]}
    return Dialogue(Served(url), Facts.read(folder / "data" / TRIPLES), about, examples_of(folder))


def arguments(given: list[str] | None) -> argparse.Namespace:
    about = (
        "A dialogue over speech, words and a drawn face: data, training, measuring, serving, a page with a microphone."
    )
    parser = command_of(
        "interaction", about, data="folder of speech-emotion (table.csv, audio/); default: made voices", port=8094
    )
    parser.add_argument("--turns", type=int, default=1200, help="of made voices")
    return parser.parse_args(given)


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """All stages up to serving. What each said."""
    stages = Stages(args.out)
    out = {"data": stages.do("data", lambda: bring(args.out / "data", args.data, turns=args.turns))}
    for name in TABLES:
        out[name] = stages.do(name, lambda n=name: train(n, args.out, epochs=args.epochs, quiet=args.quiet))
    out["measured"] = stages.do("measured", lambda: measured(args.out, out[UNDERSTAND]))
    out["watched"] = watch_files(args.out, "interaction", HERE / "rules", model_port=args.model_port, port=args.port)
    return out


def main(given: list[str] | None = None) -> None:
    args = arguments(given)
    with ended_in_words(args.out):
        found = prepare(args)
        print(json.dumps({k: found[k] for k in (*TABLES, "measured")}, indent=1, ensure_ascii=False))
        if args.no_serve:
            return
        packages = {n: args.out / "runs" / n / "model.fuse" for n in TABLES}
        with model_server(packages, args.out, port=args.model_port) as url:
            dialogue = dialogue_of(args.out, url, found)
            print(f"the page: http://127.0.0.1:{args.port}/   the models: {url}/   Ctrl-C ends both")
            uvicorn.run(make_app(dialogue), host="127.0.0.1", port=args.port, log_level="warning")
