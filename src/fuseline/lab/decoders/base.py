"""What every decoder promises. Dimensions: B batch, T fused tokens, D model width, L text tokens, P tokens remembered,
V tokens of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen
from fuseline.tasks.generation import Generation

State = dict[str, Tensor]
"""What a decoder remembers, rows first and floats all: `memory.*` never changes, `cache.*` grows in one dimension.
Their names travel into the graphs."""


class Said(NamedTuple):
    """Logits of the token after each given one (B, L, V), and all that is remembered then."""

    logits_BLV: Tensor
    state: State


class Decoder(nn.Module):
    """Abstract. Fused tokens and the text so far in, logits of the next token out."""

    Config: ClassVar[type[Frozen]] = Frozen
    growing: ClassVar[Mapping[str, int]]
    """`cache.` key (without its layer's number) -> the dimension that grows"""

    @classmethod
    def task_options(cls, config: Any) -> dict[str, Any]:
        """Options of the task that the decoder brings: its tokenizer and special ids. The user's own win."""
        return {}

    def __init__(self, config: Any, task: Generation, *, width: int) -> None:
        """`width`: D. The module is built from a fitted task."""
        super().__init__()

    def begin(self, memory: Tokens) -> Said:
        """Read the fused tokens and what stands before an answer. Logits of the first token, L = 1."""
        raise TypeError("Decoder is abstract")

    def step(self, ids_BL: Tensor, state: State) -> Said:
        """Read more tokens of the text: one when answering, all of them when learning."""
        raise TypeError("Decoder is abstract")
