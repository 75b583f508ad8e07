"""Full fine-tuning of a pretrained picture and text encoder with a row of numbers: rows a second of `fit` against a
loop written the obvious way in plain torch (a data loader that decodes and pads, AdamW, clipping, a schedule), with the
table in memory and streamed from row groups on disk. The two take turns, an epoch each, in one process.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --profile build/fit.prof    # and where fit's own time goes
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import torch
from common import LEAN, tell
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.training import loop
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.module import warmup_cosine
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.progress import Advance, Silent
from fuseline.recipe import parse_recipe

WORDS = [
    "no",
    "acute",
    "finding",
    "in",
    "the",
    "left",
    "lower",
    "lobe",
    "seen",
    "small",
    "effusion",
    "right",
    "heart",
    "normal",
    "size",
    "after",
    "treatment",
]
NUMBERS = ("age", "pulse", "weight")
FULL = {"tune": "full", "learning_rate": 1e-5}


def made(rows: int, side: int, group: int, path: Path) -> None:
    """A table of JPEGs as bytes, texts of 8 to 100 words and numbers, a tenth of the cells absent, by row groups."""
    rng = np.random.default_rng(0)
    out: dict[str, list[object]] = {name: [] for name in ("photo", "note", *NUMBERS, "label")}
    for i in range(rows):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        out["photo"].append(file.getvalue() if rng.random() > 0.1 else None)
        text = " ".join(rng.choice(WORDS, int(rng.integers(8, 101))))
        out["note"].append(text if rng.random() > 0.1 else None)
        for name in NUMBERS:
            out[name].append(float(rng.normal()) if rng.random() > 0.1 else None)
        out["label"].append("yes" if i % 2 else "no")
    pl.DataFrame(out).write_parquet(path, row_group_size=group)


def recipe(size: int, batch: int, epochs: int) -> dict:
    return {
        "inputs": {
            "photo": {"modality": "image", "encoder": {"kind": "efficientnet-lite0", "size": size, **FULL}},
            "note": {"modality": "text", "encoder": {"kind": "minilm", **FULL}},
            "vitals": {
                "modality": "tabular",
                "columns": dict.fromkeys(NUMBERS, "number"),
                "encoder": {"kind": "small"},
            },
        },
        "task": {"kind": "classification", "target": "label"},
        "split": {"kind": "random", "val": 0.0, "test": 0.0},
        "fusion": {"kind": "attention"},
        "training": {
            "epochs": epochs,
            "batch_size": batch,
            "precision": "float32",
            "loggers": [],
            "patience": 1000,
            "cache_mb": 0,  # both decode in every epoch
        },
        "evaluation": LEAN,
    }


class InMemory(Dataset):
    def __init__(self, path: Path) -> None:
        self.rows = pl.read_parquet(path).to_dicts()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        return self.rows[i]


class Streamed(IterableDataset):
    """Row group by row group in a random order, the rows of a few groups mixed."""

    def __init__(self, path: Path, group: int, together: int = 8) -> None:
        self.path, self.group, self.together, self.epoch = path, group, together, 0
        self.n_rows = pl.scan_parquet(path).select(pl.len()).collect().item()

    def __iter__(self) -> Iterator[dict]:
        rng = np.random.default_rng(self.epoch)
        self.epoch += 1
        scan = pl.scan_parquet(self.path)
        starts = rng.permutation(np.arange(0, self.n_rows, self.group))
        for at in range(0, len(starts), self.together):
            rows = [r for s in starts[at : at + self.together] for r in scan.slice(s, self.group).collect().to_dicts()]
            yield from (rows[i] for i in rng.permutation(len(rows)))


def collate(rows: list[dict], size: int, tokenizer, labels: tuple[str, ...]) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """Decode, resize, tokenize, pad: what everybody writes."""
    pixels = np.zeros((len(rows), size, size, 3), np.uint8)
    for i, row in enumerate(rows):
        if row["photo"] is not None:
            photo = Image.open(io.BytesIO(row["photo"])).convert("RGB")
            pixels[i] = np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR))
    texts = [tokenizer.encode(row["note"]).ids if row["note"] is not None else [] for row in rows]
    longest = max(1, *map(len, texts))
    ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = text
        mask[i, : max(1, len(text))] = 1
    numbers = np.array([[np.nan if row[n] is None else row[n] for n in NUMBERS] for row in rows], np.float32)
    have = ~np.isnan(numbers)
    present = np.array(
        [[r["photo"] is not None, r["note"] is not None, h.any()] for r, h in zip(rows, have, strict=True)]
    )
    arrays = {
        "photo.pixels": pixels,
        "note.ids": ids,
        "note.mask": mask,
        "vitals.numbers": np.nan_to_num(numbers),
        "vitals.numbers_present": have,
    }
    targets = torch.tensor([labels.index(row["label"]) for row in rows])
    return {k: torch.from_numpy(v) for k, v in arrays.items()}, torch.from_numpy(present), targets


def bare_loop(prepared: Prepared, model: torch.nn.Module, loader: DataLoader, steps: int) -> Callable[[], None]:
    """An epoch of plain steps."""
    spec = prepared.recipe.training
    model.train()
    own = {p for e in list(model.encoders)[:2] for p in e.parameters()}
    groups = [
        {"params": [p for p in own if p.requires_grad], "lr": FULL["learning_rate"]},
        {"params": [p for p in model.parameters() if p.requires_grad and p not in own]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: warmup_cosine(s, spec.epochs * steps, spec.warmup)
    )

    def epoch() -> None:
        for arrays, present, targets in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = model.head.loss(model(arrays, present), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
            optimizer.step()
            schedule.step()

    return epoch


def clocks() -> np.ndarray:
    """(seconds, seconds of processor time of all threads)."""
    return np.array([time.perf_counter(), time.process_time()])


class Turns:
    """A voice that, at the end of each of fit's epochs, stops the time and lets the bare loop train one."""

    def __init__(self, epoch: Callable[[], None], steps: int, profile: cProfile.Profile | None) -> None:
        self.epoch, self.steps, self.profile = epoch, steps, profile
        self.ours: list[np.ndarray] = []
        self.bare: list[np.ndarray] = []

    def say(self, text: str) -> None:
        del text

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        del title, total
        done, since = 0, clocks()

        def advance(steps: int = 1, text: str = "") -> None:
            nonlocal done, since
            del text
            done += steps
            if done % self.steps == 0:
                if self.profile:
                    self.profile.disable()
                start = clocks()
                self.ours.append(start - since)
                self.epoch()
                since = clocks()
                self.bare.append(since - start)
                print("epoch", self.ours[-1].round(2), self.bare[-1].round(2), file=sys.stderr, flush=True)
                if self.profile:
                    self.profile.enable()

        yield advance


def measure(path: Path, args: argparse.Namespace, *, streamed: bool, profile: cProfile.Profile | None) -> dict:
    parsed = parse_recipe(recipe(args.size, args.batch, args.epochs + 1))
    table = Table.open(path if streamed else pl.read_parquet(path))
    data = Streamed(path, args.group) if streamed else InMemory(path)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(parsed, table, folder=Path(folder), voice=Silent(), cache=Cache(0))
        model = build_model(parsed, prepared.plans, prepared.parser.modalities, prepared.task)
        tokenizer = copy.deepcopy(prepared.parser.modalities["note"].tokenizer)
        loader = DataLoader(
            data,
            batch_size=args.batch,
            shuffle=None if streamed else True,
            collate_fn=lambda rows: collate(rows, args.size, tokenizer, tuple(prepared.task.labels)),
            num_workers=args.workers,
            persistent_workers=args.workers > 0,
        )
        steps = args.rows // args.batch
        turns = Turns(bare_loop(prepared, copy.deepcopy(model), loader, steps), steps, profile)
        loop.fit(prepared, model, Path(folder), turns, resume=False, precision="float32")
    ours, bare = np.stack(turns.ours[1:]), np.stack(turns.bare[1:])  # the first of each warms up
    print(np.round(np.hstack([ours, bare]), 2).tolist(), file=sys.stderr, flush=True)
    (wall, busy), (bare_wall, bare_busy) = np.median(ours, axis=0), np.median(bare, axis=0)
    return {
        "table": "streamed by row groups" if streamed else "in memory",
        "fuseline": f"{args.rows / wall:.1f} rows/s",
        "bare loop": f"{args.rows / bare_wall:.1f} rows/s",
        "ratio of medians": round(bare_wall / wall, 3),
        "of processor time": round(bare_busy / busy, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96, help="side of the pictures")
    parser.add_argument("--group", type=int, default=16, help="rows in a row group")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="processes of the bare loop's data loader")
    parser.add_argument("--only", choices=["memory", "streamed"])
    parser.add_argument("--profile")
    parser.add_argument("--out")
    args = parser.parse_args()
    assert args.rows % args.batch == 0
    profile = cProfile.Profile() if args.profile else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        made(args.rows, 2 * args.size, args.group, path)
        kinds = [k for k in ("memory", "streamed") if args.only in (None, k)]
        rows = [measure(path, args, streamed=k == "streamed", profile=profile) for k in kinds]
    if profile:
        profile.dump_stats(args.profile)
    tell(f"full fine-tuning, batches of {args.batch}, {args.rows // args.batch} steps an epoch", rows, args.out)


if __name__ == "__main__":
    main()
