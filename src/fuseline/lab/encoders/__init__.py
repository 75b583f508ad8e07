"""One file a modality, a class a kind. This is the table of them."""

from __future__ import annotations

from fuseline.errors import unknown_kind
from fuseline.lab.encoders.base import Encoder

ENCODERS = {
    "text": ("small", "minilm", "hf"),
    "image": ("small", "efficientnet-lite0", "vgg", "hf"),
    "audio": ("small", "hf"),
    "tabular": ("small",),
    "graph": ("small", "transe", "rotate", "complex"),
    "video": ("small", "hf"),
    "document": ("small",),
    "timeseries": ("small", "sensors"),
}
SETS = {"images": "image", "texts": "text"}
"""modalities whose cells hold several items, and whose encoder it is that each item goes through"""
ENCODERS |= {name: ENCODERS[item] for name, item in SETS.items()}


def encoder_class(modality: str, kind: str) -> type[Encoder]:
    """The class behind an encoder's name. Each modality's default from scratch is `small`."""
    match modality, kind:
        case "text", "small":
            from fuseline.lab.encoders.text import SmallText

            return SmallText
        case "text", "minilm":
            from fuseline.lab.encoders.text_pretrained import MiniLM

            return MiniLM
        case "text", "hf":
            from fuseline.lab.encoders.text_pretrained import HFText

            return HFText
        case "image", "small":
            from fuseline.lab.encoders.image import SmallImage

            return SmallImage
        case "image", "efficientnet-lite0":
            from fuseline.lab.encoders.image_pretrained import EfficientNetLite0

            return EfficientNetLite0
        case "image", "vgg":
            from fuseline.lab.encoders.vgg import VGG

            return VGG
        case "image", "hf":
            from fuseline.lab.encoders.image_pretrained import HFImage

            return HFImage
        case "audio", "small":
            from fuseline.lab.encoders.audio import SmallAudio

            return SmallAudio
        case "audio", "hf":
            from fuseline.lab.encoders.audio_pretrained import HFAudio

            return HFAudio
        case "tabular", "small":
            from fuseline.lab.encoders.tabular import SmallTabular

            return SmallTabular
        case "graph", "small":
            from fuseline.lab.encoders.graph import SmallGraph

            return SmallGraph
        case "graph", "transe":
            from fuseline.lab.encoders.graph_links import GraphTransE

            return GraphTransE
        case "graph", "rotate":
            from fuseline.lab.encoders.graph_links import GraphRotatE

            return GraphRotatE
        case "graph", "complex":
            from fuseline.lab.encoders.graph_links import GraphComplEx

            return GraphComplEx
        case "video", "small":
            from fuseline.lab.encoders.video import SmallVideo

            return SmallVideo
        case "video", "hf":
            from fuseline.lab.encoders.video import HFVideo

            return HFVideo
        case "timeseries", "small":
            from fuseline.lab.encoders.timeseries import SmallTimeSeries

            return SmallTimeSeries
        case "timeseries", "sensors":
            from fuseline.lab.encoders.timeseries import Sensors

            return Sensors
        case "document", "small":
            from fuseline.lab.encoders.document import SmallDocument

            return SmallDocument
        case _ if modality in SETS and kind in ENCODERS[modality]:
            from fuseline.lab.encoders.several import several

            return several(encoder_class(SETS[modality], kind))
        case _:
            raise unknown_kind(f"{modality} encoder", kind, ENCODERS.get(modality, ()))
