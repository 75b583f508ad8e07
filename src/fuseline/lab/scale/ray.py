"""A team as Ray Train starts it: its workers on any machines of a cluster, started again where one of them dies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.lab.scale.worker import FAILED, Order, work
from fuseline.package.files import write_json
from fuseline.runtime.raycluster import joined


def train_on_ray(order: Order, workers: int) -> None:
    """Raises FuselineError ``missing_extra`` or ``team_lost``."""
    with joined(cpus=workers + 1, logs=not order.quiet):  # one for what holds them together
        _train(order, workers)


def _train(order: Order, workers: int) -> None:
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise FuselineError(
            "missing_extra", f"training by Ray needs {error.name}", "pip install 'fuseline[ray]', on every machine"
        ) from None
    from fuseline.lab.scale.launch import RESTARTS, lost

    gpus = ray.cluster_resources().get("GPU", 0) >= workers
    trainer = TorchTrainer(
        _work,
        train_loop_config=asdict(order),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(
            name="ray",
            storage_path=order.folder,
            failure_config=FailureConfig(max_failures=RESTARTS),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps what a worker raised in types of its own
        raise lost(str(error)[:1000]) from None


def _work(order: dict[str, Any]) -> None:
    """In every worker. Ray has connected them, and said in the environment which one this is."""
    from fuseline.lab.training.team import Team

    told = Order(**order)
    team = Team.of_environment(strategy=told.strategy)
    try:
        work(told, team)
    except FuselineError as error:
        if team.first:
            write_json(Path(told.folder) / FAILED, error.to_dict())
    team.wait()  # Ray takes an end of one as the end of all
