"""What may make a training step cheaper, in seconds of processor time, variants taking turns: length buckets on texts
of mixed lengths, channels-last and torch.compile on convolutional encoders, and the share of decoding (all that a cache
of decoded cells on disk could save).

    python benchmarks/steps.py --part buckets
    python benchmarks/steps.py --part layout
    python benchmarks/steps.py --part compile
    python benchmarks/steps.py --part decode
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from common import DATA, LEAN, tell
from throughput import WORDS

from fuseline.data.table import Table
from fuseline.lab.build import build_model, plan_inputs
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import prepare
from fuseline.lab.training.stream import epoch_batches
from fuseline.modalities import MediaRoot, modality_class
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe


def timed(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def turns(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one after the other in every round, after a round to warm up."""
    for call in variants.values():
        call()
    times = [{name: timed(call) for name, call in variants.items()} for _ in range(rounds)]
    return {name: statistics.median(t[name] for t in times) for name in variants}


def buckets(rounds: int) -> list[dict]:
    """Epochs of MiniLM, fully trained, on texts of 4 to 180 words, most of them short (log-normal)."""
    rng = np.random.default_rng(0)
    rows, batch = 256, 16
    lengths = np.clip(np.exp(rng.normal(3.2, 0.8, rows)), 4, 180).astype(int)
    texts = [" ".join(rng.choice(WORDS, n)) for n in lengths]
    frame = pl.DataFrame({"note": texts, "label": ["yes" if i % 2 else "no" for i in range(rows)]})
    spec = {
        "inputs": {"note": {"modality": "text", "encoder": {"kind": "minilm", "tune": "full"}}},
        "task": {"kind": "classification", "target": "label"},
        "split": {"kind": "random", "val": 0.0, "test": 0.0},
        "training": {"batch_size": batch, "precision": "float32", "loggers": [], "bucket": True},
        "evaluation": LEAN,
    }
    parsed = parse_recipe(spec)
    with tempfile.TemporaryDirectory() as folder:
        ready = prepare(parsed, Table.open(frame), folder=Path(folder), voice=Silent(), cache=Cache(64))
    model = build_model(parsed, ready.plans, ready.parser.modalities, ready.task).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    assert ready.length_N is not None

    def epoch(length_N: np.ndarray | None) -> Callable[[], None]:
        def run() -> None:
            for chosen in epoch_batches(ready.rows("train"), batch, 0, 0, 0, length_N=length_N):
                one = ready.reader.batch(chosen)
                optimizer.zero_grad()
                model.head.loss(model(one.arrays, one.present_BM), one.targets).backward()
                optimizer.step()

        return run

    found = turns({"random": epoch(None), "buckets": epoch(ready.length_N)}, rounds)
    return [
        {"what": f"an epoch of MiniLM, {rows} texts, batches of {batch}, {name} batches", "seconds": round(t, 2)}
        | {"as fast as random": round(found["random"] / t, 2)}
        for name, t in found.items()
    ]


def convolutional() -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    """Models of pictures (B, H, W, 3) as Fuseline's encoders are given them."""
    from transformers import ResNetConfig, ResNetModel

    from fuseline.lab.encoders.image_pretrained import EfficientNetLite0

    pixels = torch.randint(0, 255, (8, 160, 160, 3), dtype=torch.uint8)
    image = modality_class("image")
    config = image.Config(size=160)
    lite = EfficientNetLite0(EfficientNetLite0.Config(size=160), image(config, "x"))
    small = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}

    class ResNet18(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNetModel(ResNetConfig(**small))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.net(pixels.permute(0, 3, 1, 2).float() / 255).last_hidden_state

    class Values(torch.nn.Module):
        def __init__(self, encoder: torch.nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.encoder(pixels).values_BTD

    return {"EfficientNet-Lite0": (Values(lite).train(), pixels), "ResNet-18": (ResNet18().train(), pixels)}


def step(model: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        model(pixels).square().mean().backward()

    return run


def layout(rounds: int) -> list[dict]:
    rows = []
    for name, (plain, pixels) in convolutional().items():
        import copy

        last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
        # Pixels come as (B, H, W, 3), so that the permuted view is channels-last as it is.
        first = turns({"as now": step(plain, pixels), "channels-last weights": step(last, pixels)}, rounds)
        rows += [
            {"what": f"{name}, step of 8 pictures of 160, {kind}", "seconds": round(t, 3)}
            | {"as fast as now": round(first["as now"] / t, 2)}
            for kind, t in first.items()
        ]
    return rows


def compiled(rounds: int) -> list[dict]:
    rows = []
    for name, (plain, pixels) in convolutional().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fast = torch.compile(plain)
            start = sum(os.times()[:4])  # the C++ compiler is a process of its own
            step(fast, pixels)()
            cost = sum(os.times()[:4]) - start
            found = turns({"eager": step(plain, pixels), "compiled": step(fast, pixels)}, rounds)
        rows.append(
            {
                "what": f"{name}, step of 8 pictures of 160",
                "eager": round(found["eager"], 3),
                "compiled": round(found["compiled"], 3),
                "as fast as eager": round(found["eager"] / found["compiled"], 2),
                "compiling": f"{cost:.0f} s",
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def decode(rounds: int) -> list[dict]:
    """A cell's decoding beside its share of a training step of the same encoder, and beside reading it decoded."""
    table = Table.open(DATA / "chest-xray" / "table.csv")
    frame = table.take(np.arange(min(table.n_rows, 60)), ["image"])
    cells = [c for c in frame["image"].to_list() if c][:24]
    spec = {
        "inputs": {"image": {"modality": "image", "encoder": {"kind": "efficientnet-lite0", "tune": "full"}}},
        "task": {"kind": "classification", "target": "x"},
    }
    plan = plan_inputs(parse_recipe(spec))["image"]
    media = MediaRoot(str(table.folder))
    image = modality_class("image").fit(plan.modality_config, {"image": ""}, [], media)
    encoder = plan.encoder_class(plan.encoder_config, image).train()
    values = [image.parse({"image": cell}, media) for cell in cells]
    pixels = torch.from_numpy(image.collate(values[:8])["pixels"])
    with tempfile.TemporaryDirectory() as folder:
        for i, value in enumerate(values):
            np.save(Path(folder) / f"{i}.npy", np.asarray(value))
        found = turns(
            {
                "decoding": lambda: [image.parse({"image": cell}, media) for cell in cells],
                "reading it decoded": lambda: [np.load(Path(folder) / f"{i}.npy").sum() for i in range(len(cells))],
                "training step": lambda: encoder(pixels).values_BTD.square().mean().backward(),
            },
            rounds,
        )
    each = {k: t / (8 if k == "training step" else len(cells)) for k, t in found.items()}
    return [
        {"what": f"chest-xray, a picture at {image.config.size}: {k}", "ms": round(1e3 * t, 2)}
        | {"share of decoding and step": f"{t / (each['decoding'] + each['training step']):.1%}"}
        for k, t in each.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"buckets": buckets, "layout": layout, "compile": compiled, "decode": decode}
    parser.add_argument("--part", choices=list(parts), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    args = parser.parse_args()
    for part in args.part or parts:
        rows = parts[part](args.rounds)
        print(*rows, sep="\n", file=sys.stderr, flush=True)
        tell(part, rows, args.out)


if __name__ == "__main__":
    main()
