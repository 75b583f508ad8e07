"""From an empty folder to a served, watched city. See `python -m examples.city --help`."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import uvicorn
import yaml

import fuseline
from examples.city.app import City, Feed, make_app
from examples.city.data import ADJACENCY, AIR, PLACES, SPEED, bring
from examples.city.measure import silenced, warned
from examples.city.replay import Replay
from examples.city.warn import JAM, SMOG
from examples.stages import Stages, ask, command_of, ended_in_words, model_server, trained, watch_files
from fuseline import FuselineError, Recipe

HERE = Path(__file__).parent
MODELS = {"traffic": (JAM, "mph"), "air": (SMOG, "µg/m³")}
ROAD = 0.5
"""weight of the adjacency above which the map draws a road"""


def recipe_of(name: str, folder: Path, *, epochs: int | None) -> Path:
    """The system's own recipe with the folder's paths in it; written beside the data, to be read and changed."""
    recipe = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    data = folder / "data"
    recipe["table"]["path"] = str((data / (SPEED if name == "traffic" else AIR)).resolve())
    if name == "traffic":
        recipe["inputs"]["speed"]["encoder"]["adjacency"] = str((data / ADJACENCY).resolve())
    if epochs is not None:
        recipe["training"]["epochs"] = epochs
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def train(name: str, folder: Path, *, epochs: int | None, quiet: bool) -> dict[str, Any]:
    run = trained(lambda: recipe_of(name, folder, epochs=epochs), folder / "runs" / name, quiet=quiet)
    metrics = run.metrics["parts"]["test"]["metrics"]
    return {k: metrics[k]["value"] for k in ("mae", "rmse", "naive_mae", "coverage") if k in metrics}


def replay_of(name: str, folder: Path) -> Replay:
    """The test rows of a run."""
    run = folder / "runs" / name
    recipe = fuseline.load_recipe(run / "recipe.yaml")
    return Replay(recipe, _first_test_moment(recipe, run))


def _first_test_moment(recipe: Recipe, run: Path) -> datetime.datetime:
    from fuseline.data.table import Table
    from fuseline.data.windows import Windows

    tested = pl.read_parquet(run / "predictions.parquet", columns=["row", "part"]).filter(pl.col("part") == "test")
    assert recipe.table.path is not None
    assert recipe.table.windows is not None
    table = Windows(Table.open(Path(recipe.table.path)), recipe.table.windows)
    moment: datetime.datetime = table.take(np.array([tested["row"].min()]), ["time"])["time"][0]
    return moment


def measure(folder: Path) -> dict[str, Any]:
    traffic, air = (fuseline.load(folder / "runs" / n) for n in MODELS)
    roads, sky = (replay_of(n, folder) for n in MODELS)
    return {
        "jams": warned(traffic, roads, JAM),
        "smog": warned(air, sky, SMOG),
        "silent": silenced(traffic, roads),
    }


def map_of(folder: Path) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Where the sensors are, in the order of the table's columns, and the roads between them."""
    with (folder / "data" / SPEED).open(encoding="utf-8") as file:
        names = next(file).strip().split(",")
    table = pl.read_csv(folder / "data" / PLACES, schema_overrides={"sensor_id": pl.String})
    where = {r["sensor_id"]: r for r in table.iter_rows(named=True)}
    lost = [n for n in names if n not in where]
    if lost:
        raise FuselineError("bad_cell", f"{PLACES} does not say where sensor {lost[0]} is", "", column="sensor_id")
    places = [{"latitude": where[n]["latitude"], "longitude": where[n]["longitude"]} for n in names]
    weights_SS = np.loadtxt(folder / "data" / ADJACENCY, delimiter=",")
    both_SS = np.triu(np.maximum(weights_SS, weights_SS.T) > ROAD, k=1)
    return places, np.argwhere(both_SS).tolist()


def city_of(folder: Path, url: str) -> City:
    def one(model: str, row: dict[str, Any]) -> dict[str, Any]:
        return ask(url, model, [row])[0]

    feeds = {n: Feed(n, replay_of(n, folder), threshold, unit) for n, (threshold, unit) in MODELS.items()}
    return City(feeds, one, *map_of(folder))


def arguments(given: list[str] | None) -> argparse.Namespace:
    about = "Traffic and air of a city: data, training, measuring, serving, a map with warnings."
    parser = command_of("city", about, data="folder with traffic/ and air-quality/; default: a made city", port=8090)
    parser.add_argument("--sensors", type=int, default=48, help="of a made city")
    parser.add_argument("--days", type=int, default=7, help="of a made city's traffic")
    return parser.parse_args(given)


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """All stages up to serving. What each said."""
    stages = Stages(args.out)
    out = {"data": stages.do("data", lambda: bring(args.out / "data", args.data, sensors=args.sensors, days=args.days))}
    for name in MODELS:
        out[name] = stages.do(name, lambda n=name: train(n, args.out, epochs=args.epochs, quiet=args.quiet))
    out["measured"] = stages.do("measured", lambda: measure(args.out))
    out["watched"] = watch_files(args.out, "city", HERE / "rules", model_port=args.model_port, port=args.port)
    return out


def main(given: list[str] | None = None) -> None:
    args = arguments(given)
    with ended_in_words(args.out):
        found = prepare(args)
        print(json.dumps({k: found[k] for k in (*MODELS, "measured")}, indent=1, ensure_ascii=False))
        if args.no_serve:
            return
        packages = {n: args.out / "runs" / n / "model.fuse" for n in MODELS}
        with model_server(packages, args.out, port=args.model_port) as url:
            city = city_of(args.out, url)
            print(f"the map: http://127.0.0.1:{args.port}/   the models: {url}/   Ctrl-C ends both")
            uvicorn.run(make_app(city), host="127.0.0.1", port=args.port, log_level="warning")
