"""One process of a team, started by torchrun or by Ray. Not for people: `fuseline train --workers N` starts it.

python -m fuseline.lab.scale.worker ORDER.json
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.lab.training.run import run
from fuseline.lab.training.team import Team, begun
from fuseline.package.files import write_json
from fuseline.progress import voice
from fuseline.recipe import load_recipe

FAILED = "failed.json"


@dataclass(frozen=True)
class Order:
    """What all processes are told."""

    recipe: str
    """its file"""
    table: str
    """its file"""
    folder: str
    """the run's, which all processes must see"""
    quiet: bool = False
    strategy: str = "ddp"

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Order:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def work(order: Order, team: Team) -> None:
    """Train, or go on where an earlier start of the team was killed."""
    recipe, folder = load_recipe(Path(order.recipe)), Path(order.folder)
    table = open_table(Path(order.table), recipe.table)
    speak = voice("quiet" if order.quiet or not team.first else "auto")
    run(
        recipe,
        table,
        folder,
        voice=speak,
        table_path=Path(order.table),
        resume=begun(folder),
        team=team,
    )


def main() -> None:
    order = Order.read(Path(sys.argv[1]))
    team = Team.of_environment(strategy=order.strategy)
    try:
        work(order, team)
    except FuselineError as error:
        # What a user can mend is the same in all processes and at every start: told once, and not tried again.
        if team.first:
            write_json(Path(order.folder) / FAILED, error.to_dict())


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the others may have left, and an orderly end of the connection would wait for them
