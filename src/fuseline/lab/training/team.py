"""The processes that train one model together: who this one is, and what they tell each other.

Every process reads the same table and takes its share of every batch; gradients are averaged (data parallel, Li et al.
2020, "PyTorch Distributed"). The first one alone writes into the run's folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor

from fuseline.errors import FuselineError, unknown_kind

PATIENCE: Final = timedelta(minutes=30)
"""how long a process waits for the others; longer than any one of them reads alone"""
LONGEST_WORD: Final = 64
STRATEGIES: Final = ("ddp", "fsdp")
"""data parallel with a whole model in each process, or with its weights split over them"""


@dataclass(frozen=True)
class Team:
    """One process of `size`. `Team()` is one that trains alone; all its calls then cost nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    sharded: bool = False
    """whether the model's weights are split over the processes; else each has them all"""

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None, *, strategy: str = "ddp") -> Team:
        """As torchrun and Ray Train tell it, or alone. Raises FuselineError ``bad_team``, ``unknown_kind``."""
        if strategy not in STRATEGIES:
            raise unknown_kind("strategy", strategy, STRATEGIES)
        told = os.environ if environment is None else environment
        if "WORLD_SIZE" not in told:
            return cls(sharded=strategy == "fsdp")
        try:
            size, rank = int(told["WORLD_SIZE"]), int(told["RANK"])
            local, here = int(told.get("LOCAL_RANK", 0)), int(told.get("LOCAL_WORLD_SIZE", 1))
        except (KeyError, ValueError):
            raise FuselineError(
                "bad_team", "WORLD_SIZE is set, but not RANK, or they are no numbers", "start it by torchrun"
            ) from None
        if not (0 <= rank < size and 0 <= local < here and size % here == 0):
            raise FuselineError(
                "bad_team", f"rank {rank} of {size}, {local} of {here} here", "the same number on every machine"
            )
        return cls(rank, size, local, here, strategy == "fsdp")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def meet(self) -> None:
        """Connect with the others, once. They find each other by MASTER_ADDR and MASTER_PORT."""
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group(self.backend, rank=self.rank, world_size=self.size, timeout=PATIENCE)

    @property
    def backend(self) -> str:
        return "nccl" if torch.cuda.is_available() else "gloo"

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def agree(self, word: str) -> str:
        """What the first one says, in all of them: what a clock decides must not differ. At most 64 bytes."""
        if self.size == 1:
            return word
        told = word.encode()[:LONGEST_WORD].ljust(LONGEST_WORD)
        tensor = torch.frombuffer(bytearray(told), dtype=torch.uint8).to(self.device)
        dist.broadcast(tensor, 0)
        return bytes(tensor.cpu().tolist()).decode().strip()

    def tell(self, numbers: list[float]) -> list[float]:
        """The first one's numbers, in all of them."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return [float(n) for n in tensor.tolist()]

    def gather(self, mine: Tensor) -> list[Tensor]:
        """Tensors of one shape, one of each process, on the first one's CPU; nothing in the others."""
        sent = mine.to(self.device).contiguous()
        got = [torch.empty_like(sent) for _ in range(self.size)] if self.first else None
        dist.gather(sent, got, 0)
        return [tensor.cpu() for tensor in got or []]

    def mean(self, value: float) -> float:
        """Of all of them."""
        if self.size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total) / self.size

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This one's rows of a batch of all: neighbours in it, as many as the others have or one more."""
        return np.array_split(rows, self.size)[self.rank]

    def weight(self, mine: int, all_rows: int) -> float:
        """What the mean over `mine` rows counts in the mean of all processes, that it be the mean over all rows."""
        return mine * self.size / all_rows

    def check(self, batch_size: int, rows: int) -> None:
        """Raises FuselineError ``bad_team`` where some batch would leave a process without a row."""
        least = min(batch_size // 2 or 1, rows)  # an epoch's last batch may be of half the size
        if self.size > 1 and least < self.size:
            raise FuselineError(
                "bad_team",
                f"{self.size} processes for batches of down to {least} rows",
                "training.batch_size is of all processes together: twice as many rows as processes at least",
            )

    def strategy(self) -> str | Strategy:
        """Lightning's. Parameters without a gradient are looked for: a batch may lack an input in one process only."""
        if self.size == 1:
            return "auto"
        given = {"cluster_environment": Given(self), "process_group_backend": self.backend, "timeout": PATIENCE}
        if self.sharded:
            from fuseline.lab.training.sharded import ShardedStrategy

            return ShardedStrategy(**given)
        return DDPStrategy(find_unused_parameters=True, **given)


class Given(ClusterEnvironment):
    """The processes are there already, whoever started them."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.team = team

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        return int(os.environ.get("MASTER_PORT", "29500"))

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.team.size

    def set_world_size(self, size: int) -> None:
        assert size == self.team.size

    def global_rank(self) -> int:
        return self.team.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.team.rank

    def local_rank(self) -> int:
        return self.team.local_rank

    def node_rank(self) -> int:
        return self.team.rank // self.team.local_size


def weighted(loss: Tensor, weight: float) -> Tensor:
    """The loss as its gradient is to count."""
    return loss if weight == 1.0 else loss * weight


def begun(folder: Path) -> bool:
    """Whether a run in this folder got to its first checkpoint or further."""
    checkpoints = folder / "checkpoints"
    return (folder / "run.json").exists() and any((checkpoints / name).exists() for name in ("last", "last.old"))
