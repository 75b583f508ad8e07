"""The parts of a batch on Ray Data: a pool of actors, each with the package loaded, on one machine or on many.

Every machine must see the package, the table's file, the files that cells name and the folder of answers at the same
paths. An actor that dies is started again by Ray and its part is made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.package import Package
from fuseline.runtime.batch import Job, Scorer, Shard
from fuseline.runtime.parts import Parts
from fuseline.runtime.predictor import load
from fuseline.runtime.raycluster import joined


class Actor:
    """One process of the pool. `job`: a reference into Ray's object store, where a table in memory lies once."""

    def __init__(self, package: str, version: str, job: Any, out: str) -> None:
        import ray

        predictor = load(package, threads=1)
        if predictor.package.version != version:
            raise FuselineError("changed", f"{package} is not the package that the batch began with", "begin anew")
        self.scorer, self.parts = Scorer(predictor, ray.get(job), threads=1), Parts(Path(out))

    def __call__(self, shards: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows, errors = [], []
        for part, start, stop in zip(*(shards[k].tolist() for k in Shard._fields), strict=True):
            frame = self.scorer.score(start, stop)
            self.parts.write(part, frame)
            rows.append(frame.height)
            errors.append(frame.height - frame["error"].null_count())
        return {"rows": np.array(rows), "errors": np.array(errors)}


def on_ray_data(
    package: Package, job: Job, parts: Parts, todo: Sequence[Shard], workers: int | None
) -> Iterator[tuple[int, int]]:
    """Write the parts of `todo`; gives (rows, errors) of each, in whatever order they are done.

    Raises FuselineError ``missing_extra``, or ``engine_failed`` where Ray gives up.
    """
    with joined(cpus=workers or 1):
        import ray
        import ray.data
        import ray.exceptions

        logging.getLogger("ray.data").setLevel(logging.WARNING)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        actors = min(len(todo), workers or max(1, int(ray.cluster_resources().get("CPU", 1))))
        options = {
            "package": str(package.folder.resolve()),
            "version": package.version,
            "job": ray.put(job),
            "out": str(parts.folder),
        }
        shards = ray.data.from_items([s._asdict() for s in todo], override_num_blocks=len(todo))
        done = shards.map_batches(
            Actor,
            fn_constructor_kwargs=options,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
        )
        try:
            for row in done.iter_rows():
                yield int(row["rows"]), int(row["errors"])
        except (ray.exceptions.RayError, RuntimeError) as error:
            message = str(error.__cause__ or error).strip().splitlines()
            raise FuselineError(
                "engine_failed", f"Ray gave up: {message[-1] if message else error}", "what was done is kept"
            ) from error
