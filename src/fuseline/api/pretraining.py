"""Pretraining from Python: what later trainings begin from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fuseline.api.sources import PART, path_of, recipe_and_table, with_cache_folder
from fuseline.api.training import need_training, new_folder
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.progress import voice
from fuseline.recipe import Recipe, load_recipe, parse_recipe

if TYPE_CHECKING:
    from fuseline.data.split import Split
    from fuseline.lab.training.cache import Cache


@dataclass(frozen=True)
class Pretrained:
    """A pretraining's folder: what `init` takes."""

    folder: Path

    @property
    def learned(self) -> dict[str, Any]:
        """How it went: rows, losses and recall on held-out rows, seconds, notes."""
        try:
            return dict(json.loads((self.folder / "pretrained.json").read_text(encoding="utf-8"))["learned"])
        except (OSError, ValueError, KeyError, TypeError):
            hint = f"did it finish? see `fuseline pretrain --resume {self.folder}`"
            raise FuselineError("no_such_run", f"{self.folder} holds no pretrained weights", hint) from None

    @property
    def curve(self) -> Path:
        return self.folder / "curve.svg"


def pretrain(
    source: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    table: Any = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    on_error: str | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
    cache: Cache | None = None,
    cache_folder: str | Path | None = None,
    split: Split | None = None,
) -> Pretrained:
    """Learn a recipe's encoders and fusion from rows without labels; `init: FOLDER` then begins from them.

    Args:
        source: the recipe of the later training (YAML path, dict or Recipe). Its `pretrain` says what is learned.
        table: instead of the recipe's; the target columns need not be there.
        out: the folder; must not hold one already. Default: runs/NAME-TIME.
        epochs: instead of the recipe's pretrain.epochs.
        on_error: "stop" or "quarantine" instead of the recipe's table.on_error.
        resume: go on with this interrupted pretraining instead; `table` only where it was given one in memory.
        quiet: say nothing.
        cache: memory shared between runs.
        cache_folder: as in :func:`fuseline.train`.
        split: a split made by the caller; rows of its test part are not read.

    Raises:
        FuselineError: as training does. KeyboardInterrupt after Ctrl-C.
    """
    need_training()
    from fuseline.lab.pretrain.run import Progress
    from fuseline.lab.pretrain.run import pretrain as run

    if resume is None and source is None:
        raise FuselineError("bad_usage", "what shall be pretrained?", "fuseline pretrain RECIPE")
    if resume is not None:
        if source is not None or epochs is not None or on_error is not None:
            raise FuselineError("bad_usage", "resume goes on with a pretraining as it was", "leave the recipe away")
        folder = Path(resume)
        progress = Progress.open(folder)
        if progress.data.get("stage") == "done":
            return Pretrained(folder)
        recipe = load_recipe(folder / "recipe.yaml")
        given = table if table is not None else progress.data.get("table")
        if given is None:
            raise FuselineError("no_table", "it was given a table in memory", "pass the same table again: table=...")
        opened, path = open_table(given, recipe.table), path_of(given)
    else:
        recipe, opened, path = recipe_and_table(source, table, None)
        data = recipe.model_dump()
        data["pretrain"] |= {} if epochs is None else {"epochs": epochs}
        data["table"] |= {} if on_error is None else {"on_error": on_error}
        recipe = with_cache_folder(parse_recipe(data), cache_folder)
        folder = new_folder(out, path, "pretraining")
        if recipe.split.column == PART:
            path = folder / "table.parquet"
            opened.take(np.arange(opened.n_rows)).write_parquet(path)
    speak = voice("quiet" if quiet else "auto")
    try:
        run(
            recipe,
            opened,
            folder,
            voice=speak,
            cache=cache,
            split=split,
            table_path=None if path is None else path.resolve(),
            resume=resume is not None,
        )
    except KeyboardInterrupt:
        speak.say(f"to go on: fuseline pretrain --resume {folder}")
        raise
    return Pretrained(folder)
