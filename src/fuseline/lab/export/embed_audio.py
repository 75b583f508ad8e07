"""Files of sounds to waveforms inside the graph. Dimensions: B batch, S samples.

The extensions' decoder resamples by another filter than soxr (a noise of 44.1 kHz differs by a third of its loudness),
reads no OGG and no AIFF, begins an MP3 too early, and mixes three channels wrongly. What it does read exactly is let
in: WAV and FLAC of the model's own rate, of one or two channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from fuseline.lab.export.embed_files import Stacked, each_file, refused_unless, starts_with
from fuseline.lab.export.nodes import EXTENSIONS, Nodes, NotEmbeddedError
from fuseline.modalities.audio import HOP, Audio

MOST_SAMPLES = 4_000_000
"""of a row: a batch has room for the longest sound in each"""


def notes_of(modality: Audio) -> tuple[str, ...]:
    rate = modality.config.sample_rate
    return (
        f"only WAV (PCM of 16, 24 or 32 bits, or float) and FLAC of exactly {rate} Hz and one or two channels are "
        "read; anything else is an error of the whole batch",
    )


def embed_audio(nodes: Nodes, modality: Audio, bytes_N: str, sizes_B: str) -> Stacked:
    """Add the nodes that turn files into waveform (B, S) float32 and length (B,) int64.

    Raises :class:`NotEmbeddedError`.
    """
    room = modality.lengths["S"][1]
    if room > MOST_SAMPLES:
        raise NotEmbeddedError(f"its longest sound has {room} samples, and every row of a batch would take as many")
    rate, least, most = modality.config.sample_rate, modality.min_samples, modality.max_samples

    def decode(there: Nodes, file_n: str) -> list[str]:
        known = there.op("Or", _wav(there, file_n, rate), _flac(there, file_n, rate))
        whole = refused_unless(there, known, file_n, f"no WAV or FLAC of {rate} Hz with one or two channels")
        sound_1S = there.op("AudioDecoder", whole, domain=EXTENSIONS, stereo_to_mono=1)
        sound_S = there.slice(there.op("Squeeze", sound_1S, there.const([0])), there.const([0]), there.const([most]), 0)
        own = there.axis(sound_S, 0)
        pads = there.op("Concat", there.const([0]), there.op("Sub", there.const([room]), own), axis=0)
        length = there.op("Squeeze", there.op("Max", own, there.const([least])))
        return [there.op("Pad", sound_S, pads, there.const(0, np.float32)), length]

    silence: list[np.ndarray] = [np.zeros(room, np.float32), np.array(least, np.int64)]
    (wave_BS, length_B), given_B = each_file(nodes, bytes_N, sizes_B, decode, silence)
    longest = nodes.op("ReduceMax", length_B, nodes.const([0]), keepdims=1)
    hop = nodes.const([HOP])
    end = nodes.op("Mul", nodes.op("Div", nodes.op("Add", longest, nodes.const([HOP - 1])), hop), hop)
    return Stacked((nodes.slice(wave_BS, nodes.const([0]), end, 1), length_B), given_B)


def _number(nodes: Nodes, file_n: str, at: int, count: int) -> str:
    """(1,) int64: `count` bytes from `at`, the least first; 0 beyond the end."""
    padded = nodes.op("Concat", file_n, nodes.const([0] * (at + count), np.uint8), axis=0)
    digits = nodes.op(
        "Cast", nodes.slice(padded, nodes.const([at]), nodes.const([at + count]), 0), to=TensorProto.INT64
    )
    return str(nodes.op("ReduceSum", nodes.op("Mul", digits, nodes.const([256**i for i in range(count)])), keepdims=1))


def _is(nodes: Nodes, number: str, known: Sequence[int]) -> str:
    """(1,) bool: whether the number is one of these."""
    found = nodes.op("Cast", nodes.op("Equal", number, nodes.const(list(known))), to=TensorProto.INT32)
    return str(nodes.op("Cast", nodes.op("ReduceMax", found, nodes.const([0]), keepdims=1), to=TensorProto.BOOL))


def _all(nodes: Nodes, *conditions: str) -> str:
    first, *rest = conditions
    for condition in rest:
        first = nodes.op("And", first, condition)
    return first


def _wav(nodes: Nodes, file_n: str, rate: int) -> str:
    """A RIFF file that begins with its format, as nearly all do, and is as long as it says."""
    announced = nodes.op("Add", _number(nodes, file_n, 4, 4), nodes.const([8]))
    return _all(
        nodes,
        starts_with(nodes, file_n, b"RIFF"),
        starts_with(nodes, file_n, b"WAVEfmt ", at=8),
        nodes.op("LessOrEqual", announced, nodes.axis(file_n, 0)),
        _is(nodes, _number(nodes, file_n, 20, 2), (1, 3)),
        _is(nodes, _number(nodes, file_n, 22, 2), (1, 2)),
        _is(nodes, _number(nodes, file_n, 24, 4), (rate,)),
        _is(nodes, _number(nodes, file_n, 34, 2), (16, 24, 32)),
    )


def _flac(nodes: Nodes, file_n: str, rate: int) -> str:
    """Bytes 18 to 20 of the first block (RFC 9639, 8.2): 20 bits of rate, 3 of channels less one, 1 of another."""
    padded = nodes.op("Concat", file_n, nodes.const([0] * 21, np.uint8), axis=0)
    digits = nodes.op("Cast", nodes.slice(padded, nodes.const([18]), nodes.const([21]), 0), to=TensorProto.INT64)
    word = nodes.op("ReduceSum", nodes.op("Mul", digits, nodes.const([65536, 256, 1])), keepdims=1)
    told = nodes.op("Div", word, nodes.const([2]))
    return _all(nodes, starts_with(nodes, file_n, b"fLaC"), _is(nodes, told, (8 * rate, 8 * rate + 1)))
