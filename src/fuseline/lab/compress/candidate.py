"""What may be done to a model, as data: a candidate is a cut of its structure and the numbers that it computes in."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from fuseline.recipe import Frozen

Precision = Literal["float32", "bfloat16", "int8", "int8-dynamic", "weights-int8", "weights-int4"]
Backend = Literal["onnxruntime", "openvino"]


class Cut(Frozen):
    """Real smaller shapes. Empty: the model as it is."""

    layers: dict[str, float] = Field({}, description="part -> share of its layers that stay")
    widths: dict[str, float] = Field({}, description="part -> share of heads, feed-forward widths and channels")
    vocabulary: tuple[str, ...] = Field((), description="text inputs without the embedding rows that no text needs")

    thorough: bool = Field(False, description="encoders that the recipe froze train, too, while the cut is healed")

    def __bool__(self) -> bool:
        return bool(self.layers or self.widths or self.vocabulary)


class Numbers(Frozen):
    """Number formats and what runs them."""

    backend: Backend = "onnxruntime"
    precision: dict[str, Precision] = Field({}, description="part -> format; a part without: float32")
    keep_float: tuple[str, ...] = Field((), description="modules left in float whatever their part")
    aware: bool = Field(False, description="fine-tuned under rounding before (quantisation-aware)")


class Candidate(Frozen):
    cut: Cut = Cut()
    numbers: Numbers = Numbers()
    student: str = Field("", description="another recipe's model, taught by this one; empty: this model")

    def words(self) -> str:
        """For people: `notes: 50 % of layers, int8 · image: int8 · OpenVINO`."""
        numbers, cut = self.numbers, self.cut
        said = [f"student {self.student}"] if self.student else []
        parts = dict.fromkeys([*cut.layers, *cut.widths, *cut.vocabulary, *numbers.precision])
        by_text: dict[str, list[str]] = {}
        for part in parts:
            words = []
            if part in cut.layers:
                words.append(f"{cut.layers[part]:.0%} of layers")
            if part in cut.widths:
                words.append(f"{cut.widths[part]:.0%} of widths")
            if part in cut.vocabulary:
                words.append("used words")
            if numbers.precision.get(part, "float32") != "float32":
                words.append(numbers.precision[part])
            if words:
                by_text.setdefault(", ".join(words), []).append(part)
        said += [f"{', '.join(names)}: {text}" for text, names in by_text.items()]
        if cut.thorough:
            said.append("healed thoroughly")
        if numbers.keep_float:
            said.append(f"{len(numbers.keep_float)} modules kept in float")
        if numbers.aware:
            said.append("tuned under rounding")
        said.append({"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[numbers.backend])
        return " · ".join(said)


def key_of(*what: Any) -> str:
    """A short name for anything that is plain data or a model of it: the same data, the same name."""
    plain = [w.model_dump(mode="json") if isinstance(w, Frozen) else w for w in what]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
