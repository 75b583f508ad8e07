"""What an explanation says, as JSON. One schema for the library, the command line, the server and the page."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fuseline.recipe import Frozen


class Quantity(Frozen):
    """The one number of an answer that is explained."""

    kind: Literal["probability", "number"] = Field(description="probability of a class, or a number in its own unit")
    target: str | None = Field(None, description="which target, where the model answers several")
    label: str | None = Field(None, description="the class, where it is a probability")
    steps: int | None = Field(None, description="of a forecast: the steps that the number is the mean of")


class ByInput(Frozen):
    """Shapley values over the inputs that the row has."""

    method: Literal["exact", "sampled"] = Field(description="every subset of inputs, or random orders of them")
    base: float = Field(description="the quantity when every input is absent")
    values: dict[str, float] = Field(description="input -> its share; base and shares add up to the quantity")
    errors: dict[str, float] | None = Field(None, description="of `sampled`: standard error of each share")
    gap: float = Field(description="base plus shares minus the quantity: 0 but for rounding")
    outputs: int = Field(description="answers of the model that it took")


class PartValue(Frozen):
    label: str = Field(description="a word, a column, a channel; else where it is, in words")
    place: tuple[float, ...] = Field(
        description="word: first and last character of the text as read; patch: left, top, right, bottom as shares of "
        "the picture as the model sees it; second: from, to; step: first, last from 0; frame: seconds; else empty"
    )
    value: float = Field(description="what the quantity loses when the part is hidden: above 0 speaks for it")


class Inside(Frozen):
    """What the parts of one input did, all other inputs staying as they are."""

    input: str
    modality: str
    method: Literal["occlusion", "integrated gradients"]
    unit: str = Field(description="word, patch, second, step, channel, column, item, frame, edge")
    hidden: str = Field(description="what a hidden part is replaced by, in words")
    parts: tuple[PartValue, ...]
    text: str | None = Field(None, description="of words: the text as the model reads it")
    outputs: int = Field(description="answers of the model (or passes forth and back) that it took")
    gap: float | None = Field(
        None, description="of integrated gradients: sum of all parts minus what all of them together change"
    )


class WhatIf(Frozen):
    """One thing made otherwise: an input absent, or a cell changed."""

    absent: str | None = Field(None, description="the input that was made absent")
    changes: dict[str, Any] | None = Field(None, description="column -> the new cell")
    value: Any = Field(description="the model's answer then")
    quantity: float | None = Field(description="the explained quantity then")
    change: float | None = Field(description="the quantity then minus the quantity now")
    error: str | None = Field(None, description="why there is no answer")


class Neighbour(Frozen):
    row: int = Field(description="of the indexed table")
    score: float = Field(description="cosine of the fused embeddings")
    id: Any = None
    cells: dict[str, Any] = Field(default_factory=dict, description="columns that the index kept")


class Explanation(Frozen):
    """One row. Where it could not be read or explained, `error` says why and the rest is empty."""

    row: int = Field(description="of the table or list given, from 0")
    answer: dict[str, Any] = Field(description="the answer as `predict` gives it")
    of: Quantity | None = Field(None, description="what is explained")
    quantity: float | None = Field(None, description="its value")
    inputs: ByInput | None = None
    inside: tuple[Inside, ...] = ()
    what_if: tuple[WhatIf, ...] = ()
    nearest: tuple[Neighbour, ...] = Field((), description="rows of an index with the nearest embeddings")
    notes: tuple[str, ...] = Field((), description="what was left out and why")
    outputs: int = Field(0, description="answers of the model that this row took in all")
    error: dict[str, Any] | None = None


class Mean(Frozen):
    """A mean over rows with a 95 % bootstrap interval (null: fewer than two rows)."""

    value: float
    low: float | None = None
    high: float | None = None
    rows: int


class Summary(Frozen):
    """Over the explained rows. An input's mean is over the rows that have it."""

    rows: int
    errors: int
    importance: dict[str, Mean] = Field(description="input -> mean of |share|")
    by_class: dict[str, dict[str, Mean]] = Field(
        description='answered class ("" where there are none) -> input -> mean of the signed share'
    )


class Explanations(Frozen):
    """A whole result. `format` is raised when a key changes its meaning or goes away; new keys come without."""

    format: Literal[1] = 1
    model: dict[str, str] = Field(description="name and version of the package")
    rows: tuple[Explanation, ...]
    summary: Summary
