"""Side by side in one run: training against a bare loop over the same model with tensors in memory, and the predictor
against a bare onnxruntime session on the same graph.

    python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from chest_xray import BASE, INPUTS
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.training import loop
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import prepare
from fuseline.lab.training.reader import Batch
from fuseline.lab.training.stream import epoch_batches
from fuseline.modalities import MediaRoot
from fuseline.progress import Advance, Silent
from fuseline.recipe import TrainingSpec, parse_recipe
from fuseline.runtime import load


def recipe(tune: str, epochs: int) -> dict:
    inputs = copy.deepcopy(INPUTS)
    for name in ("image", "notes"):
        inputs[name]["encoder"] |= {"tune": tune, "learning_rate": 1e-5} if tune == "full" else {"tune": tune}
    training = {**BASE["training"], "epochs": epochs, "patience": 1000}
    return {**BASE, "inputs": inputs, "training": training, "evaluation": LEAN, "split": {**BASE["split"], "folds": 0}}


class Turns:
    """A voice that, when fit ends an epoch, trains a bare loop for as many steps and stops the time of that.

    Taking turns of a fraction of a second, both meet the same load of the machine. When fit has ended its last step of
    an epoch, its reading thread is at rest, so none of its work hides in the bare loop's time; and since fit seeds
    every step, the bare loop does not change its numbers.
    """

    def __init__(self, epoch: Callable[[], None], steps: int) -> None:
        self.epoch, self.steps = epoch, steps
        self.seconds = 0.0
        self.epochs = 0

    def say(self, text: str) -> None:
        del text

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        del title, total
        done = 0

        def advance(steps: int = 1, text: str = "") -> None:
            nonlocal done
            del text
            done += steps
            if done % self.steps == 0:
                start = time.perf_counter()
                self.epoch()
                self.seconds += time.perf_counter() - start
                self.epochs += 1

        yield advance


def bare_loop(model: torch.nn.Module, batches: list[Batch], spec: TrainingSpec) -> Callable[[], None]:
    """An epoch of plain steps: forward, loss, backward, clip, and the same optimiser as fit's."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)

    def epoch() -> None:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = model.head.loss(model(batch.arrays, batch.present_BM), batch.targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, spec.clip)
            optimizer.step()

    return epoch


def training_ratio(tune: str, epochs: int, rounds: int, *, cached: bool) -> dict:
    """Samples a second of the whole of fit (start, checkpoints and best weights included) over those of a bare loop.

    Both take the same number of steps over the same rows. There is no validation part, since a bare loop has none.
    """
    table = Table.open(DATA / "chest-xray" / "table.csv")
    spec = recipe(tune, epochs)
    seconds = TrainingSpec().checkpoint_seconds
    spec["training"] |= {"checkpoint_seconds": 2 * seconds}  # about half of the time that passes is the bare loop's
    parsed = parse_recipe(spec)
    training = parsed.training
    short = parsed.model_copy(update={"training": training.model_copy(update={"epochs": 1})})
    cache = Cache(1024)
    results = []
    for i in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            # A short first round warms up.
            prepared = prepare(parsed if i else short, table, folder=Path(folder), voice=Silent(), cache=cache)
            model = build_model(parsed, prepared.plans, prepared.parser.modalities, prepared.task)
            if cached:
                loop.keep_frozen(prepared, model, Silent())
            order = list(epoch_batches(prepared.rows("train"), training.batch_size, training.seed, 0, 0))
            batches = [prepared.reader.batch(rows) for rows in order]
            turns = Turns(bare_loop(copy.deepcopy(model), batches, training), len(batches))
            start = time.perf_counter()
            loop.fit(prepared, model, Path(folder), turns, resume=False, precision="float32")
            ours = time.perf_counter() - start - turns.seconds
            samples = turns.epochs * sum(len(rows) for rows in order)
            if i:
                assert turns.epochs == epochs
                results.append((turns.seconds / ours, samples / ours, samples / turns.seconds))
    ratio, ours, plain = (statistics.median(r[i] for r in results) for i in range(3))
    return {
        "what": f"training, {tune}" + (", frozen outputs kept" if cached else ""),
        "fuseline": f"{ours:.0f} rows/s",
        "bare loop": f"{plain:.0f} rows/s",
        "ratio": round(ratio, 3),
    }


def predictor_ratio(size: int, rounds: int) -> list[dict]:
    """Time of Predictor.predict on rows already decoded, and from files, over a bare session.run on the same arrays."""
    table = Table.open(DATA / "chest-xray" / "table.csv")
    spec = {**recipe("frozen", 1), "evaluation": {**LEAN, "export": True}}
    with tempfile.TemporaryDirectory() as folder:
        run = api.train(spec, table=table, out=Path(folder) / "run", quiet=True)
        predictor = load(run.package)
        rows = table.take(np.arange(size), list(predictor.rows.columns)).to_dicts()
        media = MediaRoot(str(table.folder))
        parsed = [predictor.rows.parse(row, media) for row in rows]
        arrays = predictor.rows.arrays([p.values for p in parsed])
        session = predictor.backend.session
        times: dict[str, list[float]] = {"bare": [], "answer": [], "predict": []}
        for i in range(rounds + 3):
            for name, call in (
                ("bare", lambda: session.run(None, arrays)),
                ("answer", lambda: predictor.answer(parsed)),
                ("predict", lambda: predictor.predict(rows, media=table.folder)),
            ):
                start = time.perf_counter()
                call()
                if i >= 3:
                    times[name].append(time.perf_counter() - start)
    base = statistics.median(times["bare"])
    return [
        {
            "what": f"predictor, batch {size}, {what}",
            "fuseline": f"{statistics.median(times[name]) * 1e3:.2f} ms",
            "bare loop": f"{base * 1e3:.2f} ms",
            "ratio": round(statistics.median(a / b for a, b in zip(times[name], times["bare"], strict=True)), 3),
        }
        for name, what in (("answer", "from decoded rows"), ("predict", "from files"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    rows = []
    for part in (
        lambda: [training_ratio("frozen", 30, args.rounds, cached=True)],
        lambda: predictor_ratio(1, 100),
        lambda: predictor_ratio(16, 15),
        lambda: [training_ratio("frozen", 3, 1, cached=False)],
        lambda: [training_ratio("full", 3, 1, cached=False)],
    ):
        found = part()
        rows += found
        print(*found, sep="\n", file=sys.stderr, flush=True)
    tell("speed against bare loops", rows, args.out)


if __name__ == "__main__":
    main()
