"""What every encoder promises: arrays of one input in, tokens out, each row independent of its neighbours.

Rules that the conformance suite checks for every kind:
- a row's tokens do not depend on the other rows of the batch nor on the padding that they force (mask after every
  layer that mixes neighbours in time: a padded frame must look like the layer's own zero padding);
- normalising (mean and std of pixels, mel filters, standardising of numbers) happens in `forward`, so that it is in
  the exported graph and serving cannot differ;
- `forward` exports with torch.onnx (dynamo) with dynamic batch and lengths: no Python branch on tensor values or on
  lengths, no `.item()`, no data-dependent shapes;
- no batch norm that trains on dummies: absent cells arrive as black pictures, silence, pad tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from fuseline.lab.tokens import Tokens
from fuseline.modalities.base import Modality
from fuseline.recipe import Frozen


class Encoder(nn.Module):
    """Abstract. A subclass owns its `Config`, sets `width`, and is final."""

    Config: ClassVar[type[Frozen]]
    pretrained: ClassVar[bool] = False
    """whether weights come from outside (then `tune: auto` means frozen)"""
    width: int
    """D of the tokens it gives"""

    def __init__(self, config: Any, modality: Modality) -> None:
        """`modality` is fitted: vocabularies, quantiles, sizes are read from it."""
        super().__init__()

    @classmethod
    def cell_options(cls, config: Any) -> dict[str, Any]:
        """Options that the modality must have for this encoder (size, sample_rate, tokenizer ...). May read files."""
        return {}

    def begin(self, seed: int, say: Callable[[str], None]) -> None:
        """Learn what can be learned without the task, from what the modality holds. Called once, before the first step
        of a training that is not resumed from a checkpoint. The same seed, the same weights."""
        return

    def fold(self) -> None:
        """Before an export, in eval mode: bring what does not depend on a row to a buffer of the state dict, so that
        the graph holds the outcome and not its computation."""
        return

    def traced_from(self, dimension: str, least: int) -> int:
        """From which length the exporter may vary a dimension of the arrays. It takes whatever comes out as 1 for a
        constant, and where the shortest cells give one token it traces once in vain: then the length of two tokens.
        What it traced holds for the shorter ones, too."""
        return least

    def unfold(self) -> None:
        """Forget what `fold` made."""
        return

    def lookups(self) -> tuple[nn.Embedding, ...]:
        """The tables in which ids of cells (words, categories) are looked up, each once a pass: an attack moves what
        they give, since ids themselves have no direction."""
        return ()

    def gates(self, **arrays: Any) -> dict[str, Tensor]:
        """Weights at which a row's surroundings come in, where it has any: `forward` takes others under these names.
        Zeros: as if there were none. Gradients follow them where an array (an entity's id) has no direction."""
        return {}

    def forward(self, **arrays: Any) -> Tokens:
        raise TypeError("Encoder is abstract")
