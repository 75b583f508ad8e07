"""One file a fusion. This is the table of them."""

from __future__ import annotations

from fuseline.errors import unknown_kind
from fuseline.lab.fusion.base import Fusion

FUSIONS = ("sum", "concat", "gated", "low_rank", "attention", "cross_attention")
BOOSTED = ("stacked", "auto")
"""kinds of `fusion` that are no layers of a network: boosted trees, see fuseline.lab.stacked"""


def fusion_class(kind: str) -> type[Fusion]:
    match kind:
        case "sum":
            from fuseline.lab.fusion.sum import SumFusion

            return SumFusion
        case "concat":
            from fuseline.lab.fusion.concat import ConcatFusion

            return ConcatFusion
        case "gated":
            from fuseline.lab.fusion.gated import GatedFusion

            return GatedFusion
        case "low_rank":
            from fuseline.lab.fusion.low_rank import LowRankFusion

            return LowRankFusion
        case "attention":
            from fuseline.lab.fusion.attention import AttentionFusion

            return AttentionFusion
        case "cross_attention":
            from fuseline.lab.fusion.cross_attention import CrossAttentionFusion

            return CrossAttentionFusion
        case _:
            raise unknown_kind("fusion", kind, (*FUSIONS, *BOOSTED))
