"""Training one run, from prepared rows to the best weights. Lightning underneath."""

from __future__ import annotations

import logging
import math
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.model import FusionModel
from fuseline.lab.training.average import Average
from fuseline.lab.training.callbacks import Bar, Keeper, Watch
from fuseline.lab.training.checkpoint import SafeCheckpointIO, load_weights, trained_names
from fuseline.lab.training.consistency import make_consistency, told_of
from fuseline.lab.training.disk.told import told
from fuseline.lab.training.loggers import make_loggers
from fuseline.lab.training.module import Objective, TrainModule
from fuseline.lab.training.precision import choose
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.sharded import check_sharded, scalars_of, sharded
from fuseline.lab.training.step_loss import make_step_loss
from fuseline.lab.training.stream import Stream, steps_per_epoch
from fuseline.lab.training.team import Team
from fuseline.lab.training.validation import Validation
from fuseline.package.files import settle
from fuseline.progress import Voice
from fuseline.recipe import TrainingSpec
from fuseline.tasks.decoding import watched

SHOWN = 4096
"""training rows that a head is shown before it learns"""
DECAY = 0.99
"""of the teacher's weights, where the recipe names none"""
VALIDATED = 256
"""rows of a validation batch at most: a batch of a large team would be one process's work, and in its memory"""
LIGHTNING_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass
class Trained:
    """How a training ended."""

    best: dict[str, Any]
    history: list[dict[str, float]]
    seconds: float
    precision: str
    unlabelled: dict[str, Any] = field(default_factory=dict)
    """what the rows without a target said, {} where there were none"""


@contextmanager
def _lightning_quiet() -> Iterator[None]:
    """Its banners and its advice on data loaders that we do not use."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")
        warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*")
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _ctrl_c_as_ever(trainer: pl.Trainer) -> Iterator[None]:
    """Lightning makes of Ctrl-C an exit of the process, and has later ones ignored: neither is a library's business."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None


def begin(prepared: Prepared, model: FusionModel) -> None:
    """Show the head training rows once, if it asks for them: all, or some from all over a large table."""
    rows = prepared.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), SHOWN)).astype(int)]
    batches = prepared.reader.batches(rows, 256)
    model.head.begin((batch.arrays, batch.targets) for batch in batches if batch.targets is not None)


def keep_frozen(prepared: Prepared, model: FusionModel, voice: Voice) -> dict[str, Any]:
    """Encode each cell of each frozen input once, if disk or memory hold them all; else they are encoded in every step.

    Returns what the folder on disk gave, {} where there is none.
    """
    frozen = [n for n in model.names if prepared.plans[n].stays]
    if not frozen or not prepared.recipe.training.cache_mb:
        return {}
    reader, store = prepared.reader, prepared.reader.cache.store
    model.eval()
    if store is not None:
        store.begin()
    for name in frozen:
        encoder = model.encoders[model.names.index(name)]
        assert isinstance(encoder, Encoder)
        reader.keep(name, encoder, repr(prepared.plans[name].encoder_config))
    rows = np.concatenate([np.flatnonzero(prepared.part >= 0), prepared.unlabelled])
    if store is not None:
        # From a place of its own, so that processes that begin together encode different cells and find the others'.
        rows = np.roll(rows, -int(np.random.default_rng(os.getpid()).integers(max(1, len(rows)))))
    lost, before = reader.cache.evicted, None if store is None else store.counts
    with voice.track("encoding frozen inputs", len(rows)) as advance:
        for start in range(0, len(rows), 64):
            reader.read(rows[start : start + 64])
            advance(len(rows[start : start + 64]))
            if reader.cache.evicted > lost and reader.cache.crowded:
                reader.let_go()
                prepared.notes.append(
                    "frozen encoders run in every step: their outputs do not fit in training.cache_mb "
                    f"({prepared.recipe.training.cache_mb})"
                )
                break
    if store is None or before is None:
        return {}
    store.flush()
    prepared.notes += [f"{name}: its frozen encoder is not deterministic: not kept on disk" for name in reader.unsteady]
    return told(store, before, voice)


def fit(
    prepared: Prepared,
    model: FusionModel,
    folder: Path,
    voice: Voice,
    *,
    resume: bool,
    precision: str,
    objective: Objective | None = None,
    watch: Watch | None = None,
    team: Team | None = None,
) -> Trained:
    """Train, checkpoint every interval, and leave the best weights in `model` (of the team's first process).

    `objective`: what is made small; None: the head's own loss, by which validation goes in either case.

    Raises KeyboardInterrupt after Ctrl-C; what was checkpointed is in `folder`/checkpoints and can be resumed.
    """
    spec, team = prepared.recipe.training, team or Team()
    train, val = prepared.rows("train"), prepared.rows("val")
    team.check(spec.batch_size, len(train))
    check_sharded(spec, team, precision)
    per_epoch = steps_per_epoch(len(train), spec.batch_size)
    total = spec.epochs * per_epoch
    intervals = math.ceil(total / min(spec.interval_steps, per_epoch))
    # Whole intervals, a few steps more than asked where they do not divide: Lightning validates after as many steps as
    # the first interval had, so that a shorter last one would end without a validation.
    interval_steps = math.ceil(total / intervals)
    total = intervals * interval_steps
    metric = watched(prepared.task) if spec.metric == "auto" else spec.metric
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    size = min(max(64, spec.batch_size), VALIDATED)
    validation = Validation(prepared.reader, val, size, team) if len(val) else None
    keeper = Keeper(checkpoints, prepared.task, metric, spec, validation, watch=watch, team=team)
    optimizer_steps = intervals * math.ceil(interval_steps / spec.accumulate)
    # Another objective has a teacher of its own, and weights whose mean may mean nothing (rounded ones).
    learns_more = objective is None
    consistency = make_consistency(prepared, total) if learns_more else None
    decay = average_decay(spec) if learns_more else 0.0
    module = TrainModule(
        sharded(model, team) if team.sharded else model,
        spec,
        total_steps=min(optimizer_steps, math.ceil(total / spec.accumulate))
        if spec.accumulate == 1
        else optimizer_steps,
        interval_steps=interval_steps,
        learning_rates={name: plan.learning_rate for name, plan in prepared.plans.items()},
        step_loss=None if objective is not None else make_step_loss(prepared, model),
        objective=objective,
        team=team,
        scalars=scalars_of(model) if team.sharded else frozenset(),
        average=Average(model, trained_names(model), decay) if decay else None,
        consistency=consistency,
    )
    last = checkpoints / "last"
    if team.first:
        settle(last)
    team.wait()
    module.train()  # Lightning keeps the mode it is given, and encoding frozen inputs needed eval mode
    with _lightning_quiet(), voice.track("training", total) as advance:
        trainer = pl.Trainer(
            max_epochs=intervals,
            accelerator="auto",
            devices=team.local_size,
            num_nodes=team.size // team.local_size,
            strategy=team.strategy(),
            use_distributed_sampler=False,  # the stream gives each its share
            precision=LIGHTNING_PRECISION[precision],
            gradient_clip_val=spec.clip,
            accumulate_grad_batches=spec.accumulate,
            callbacks=[keeper, Bar(advance, keeper)],
            logger=make_loggers(spec.loggers, folder, prepared.recipe.model_dump(mode="json")) if team.first else False,
            plugins=[SafeCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if validation else 0,
            inference_mode=not team.sharded,  # weights are gathered and put back, which tensors of that mode forbid
            default_root_dir=str(folder),
        )
        stream = Stream(
            prepared.reader,
            train,
            batch_size=spec.batch_size,
            seed=spec.seed,
            interval_steps=interval_steps,
            total_steps=total,
            interval=lambda: keeper.interval,
            team=team,
            unlabelled=None if consistency is None else prepared.unlabelled,
            ratio=1 if consistency is None else consistency.spec.ratio,
            length_N=prepared.length_N,
        )
        with _ctrl_c_as_ever(trainer):
            trainer.fit(
                module,
                train_dataloaders=stream,
                val_dataloaders=validation,
                ckpt_path=str(last) if resume and last.exists() else None,
            )
    if team.first:
        load_weights(model, checkpoints / "best.safetensors")
    best = {
        "interval": keeper.best_interval,
        "step": int(keeper.history[keeper.best_interval]["step"]) if keeper.history else 0,
        "metric": metric,
        "value": keeper.best,
    }
    told = {} if consistency is None else told_of(prepared, consistency, keeper.history, keeper.best_interval)
    return Trained(best, keeper.history, keeper.seconds, precision, told)


def average_decay(spec: TrainingSpec) -> float:
    """0: no average of the weights."""
    return spec.ema if spec.ema is not None else DECAY if spec.unlabelled is not None else 0.0


def choose_precision(prepared: Prepared, model: FusionModel, notes: list[str]) -> str:
    spec = prepared.recipe.training
    if spec.precision != "auto":
        return spec.precision
    rows = prepared.rows("train")[: spec.batch_size]
    kind, note = choose(model, prepared.reader.batch(rows))
    notes.append(note)
    return kind


@torch.inference_mode()
def check_metric(prepared: Prepared, model: FusionModel) -> None:
    """A metric that the task does not have is an error before training: score a handful of rows and look."""
    wanted = prepared.recipe.training.metric
    if wanted == "auto":
        return
    batch = prepared.reader.batch(prepared.rows("train")[:4])
    assert batch.targets is not None
    outputs = model.eval().head.validation(model(batch.arrays, batch.present_BM), batch.targets)
    known = prepared.task.score(
        batch.targets.numpy(), {k: v.numpy() for k, v in outputs.items()}, details=False
    ).metrics
    if wanted not in known:
        raise FuselineError("bad_recipe", f"training.metric: no metric {wanted!r}", f"known: {', '.join(known)}")


def parameters(module: torch.nn.Module) -> tuple[int, int]:
    """(all, trainable)."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, t in sizes if t)
