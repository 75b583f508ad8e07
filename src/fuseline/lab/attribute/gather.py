"""From attributions of single numbers to those of parts: words, patches, moments, columns, steps, edges.

Dimensions: H height, W width, S samples, T tokens, L steps, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fuseline.explain.parts import Parts
from fuseline.explain.schema import PartValue
from fuseline.lab.attribute.integrated import Attribution, Key
from fuseline.lab.encoders.graph import SmallGraph
from fuseline.modalities import Modality
from fuseline.modalities.audio import Audio
from fuseline.modalities.graph import Graph
from fuseline.modalities.image import Image
from fuseline.modalities.tabular import Tabular
from fuseline.modalities.text import Text
from fuseline.modalities.timeseries import TimeSeries

BASELINES = {
    "text": "from word vectors of zeros",
    "image": "from the picture's mean colour",
    "audio": "from silence",
    "tabular": "from the training means, and category vectors of zeros",
    "timeseries": "from the training means",
    "graph": "from the entity alone, without its edges",
}
"""modality -> where its path begins, in words; others have no gradients that are told"""


def baselines(modality: Modality, value: Any) -> dict[str, Tensor]:
    """Array -> where its path begins."""
    match modality:
        case Image():
            mean = np.asarray(value).reshape(-1, 3).mean(axis=0).round()
            return {"pixels": torch.tensor(mean, dtype=torch.float32)}
        case Audio():
            return {"waveform": torch.zeros(1)}
        case Tabular() if modality.number_names:
            return {"numbers": torch.tensor(modality.mean)}
        case TimeSeries():
            return {"values": torch.tensor(modality.mean, dtype=torch.float32)}
        case _:
            return {}


def gather(modality: Modality, parts: Parts, found: Attribution) -> list[PartValue]:
    """The attributions summed over each part; what belongs to none (special tokens) as a part of its own at the end."""
    by = found.by_key
    match modality:
        case Text():
            values = _words(modality, parts, by[0])
        case Image():
            pixels_HW = by["pixels"].sum(axis=-1)
            height, width = pixels_HW.shape
            values = []
            for left, top, right, bottom in parts.places:
                rows = slice(round(top * height), round(bottom * height))
                values.append(float(pixels_HW[rows, round(left * width) : round(right * width)].sum()))
        case Audio():
            rate = modality.config.sample_rate
            values = [float(by["waveform"][round(a * rate) : round(b * rate)].sum()) for a, b in parts.places]
        case Tabular():
            values = _columns(modality, parts, by)
        case TimeSeries():
            values = _series(modality, parts, by["values"])
        case _:
            raise AssertionError(modality.name)
    out = [
        PartValue(label=label, place=place, value=value)
        for label, place, value in zip(parts.labels, parts.places, values, strict=True)
    ]
    rest = float(sum(v.sum() for v in by.values())) - sum(values)
    if isinstance(modality, Text):
        out.append(PartValue(label="(special tokens)", place=(0.0, 0.0), value=rest))
    return out


def edges(modality: Graph, encoder: nn.Module, entity: Tensor, found: Attribution, most: int) -> list[PartValue]:
    """Of every edge around the row's entity that its encoder looks at: `place` says how many edges away its ends are.

    Args:
        modality: fitted, for the names.
        encoder: with gates, or it has no edges to tell.
        entity: (1,) as `collate` has it.
        found: by the encoder's gates.
        most: edges that are told singly, those that did most; the others together at the end.
    """
    if not isinstance(encoder, SmallGraph):
        return []
    sums: dict[tuple[int, int, int, int], float] = {}
    count = len(modality.relations)
    with torch.no_grad():
        walks = encoder.walks(entity)
    for distance, walk in enumerate(walks):
        here_PK = walk.here_BP[0][:, None].expand_as(walk.next_BPK[0])
        there_PK = walk.share_BPK[0] > 0
        ends = (v[there_PK].tolist() for v in (here_PK, walk.relation_BPK[0], walk.next_BPK[0]))
        values = found.by_key[f"edges_{distance}"][there_PK.numpy()].tolist()
        for here, relation, far, value in zip(*ends, values, strict=True):
            ahead = relation < count
            key = (here if ahead else far, relation % count, far if ahead else here, distance)
            sums[key] = sums.get(key, 0.0) + value

    def name(place: int) -> str:
        return modality.entities[place - 1]

    order = sorted(sums, key=lambda k: -abs(sums[k]))
    out = [
        PartValue(
            label=f"{name(head)} \N{RIGHTWARDS ARROW} {modality.relations[relation]} \N{RIGHTWARDS ARROW} {name(tail)}",
            place=(float(distance), float(distance + 1)),
            value=sums[head, relation, tail, distance],
        )
        for head, relation, tail, distance in order[:most]
    ]
    if rest := order[most:]:
        out.append(PartValue(label=f"({len(rest)} more edges)", place=(), value=sum(sums[k] for k in rest)))
    return out


def _words(modality: Text, parts: Parts, tokens_T: np.ndarray) -> list[float]:
    """Each token to the word that its characters lie in."""
    assert parts.text is not None
    values = [0.0] * len(parts)
    offsets = modality.tokenizer.encode(parts.text).offsets[: len(tokens_T)]
    for (start, stop), number in zip(offsets, tokens_T, strict=False):
        if stop <= start:
            continue
        # A byte-level token may carry the blank before its word.
        middle = stop - 0.5
        for i, (first, last) in enumerate(parts.places):
            if first <= middle < last:
                values[i] += float(number)
                break
    return values


def _columns(modality: Tabular, parts: Parts, by: dict[Key, np.ndarray]) -> list[float]:
    values = dict.fromkeys(modality.columns, 0.0)
    for name, number in zip(modality.number_names, by.get("numbers", ()), strict=False):
        column = name if name in values else name.rpartition(".")[0]
        values[column] += float(number)
    for name, number in zip(modality.category_names, by.get(0, ()), strict=False):
        values[name] += float(number)
    return [values[column] for column in parts.labels]


def _series(modality: TimeSeries, parts: Parts, values_LC: np.ndarray) -> list[float]:
    if parts.unit == "channel":
        return [float(v) for v in values_LC.sum(axis=0)]
    length = round(parts.places[-1][1]) + 1
    first = 0 if modality.ahead else len(values_LC) - length
    steps_L = values_LC.sum(axis=1)[first : first + length]
    return [float(steps_L[round(a) : round(b) + 1].sum()) for a, b in parts.places]
