"""One file a decoder. This is the table of them."""

from __future__ import annotations

from fuseline.errors import unknown_kind
from fuseline.lab.decoders.base import Decoder

DECODERS = ("small", "seq2seq", "prefix")

__all__ = ["DECODERS", "Decoder", "decoder_class"]


def decoder_class(kind: str) -> type[Decoder]:
    match kind:
        case "small":
            from fuseline.lab.decoders.small import SmallDecoder

            return SmallDecoder
        case "seq2seq":
            from fuseline.lab.decoders.seq2seq import Seq2SeqDecoder

            return Seq2SeqDecoder
        case "prefix":
            from fuseline.lab.decoders.prefix import PrefixDecoder

            return PrefixDecoder
        case _:
            raise unknown_kind("decoder", kind, DECODERS)
