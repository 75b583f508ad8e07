"""What passes between the doors (HTTP, gRPC, Ray), the core and its observers. No transport here, and no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

from fuseline.runtime import Answer

Row = Mapping[str, Any]
"""column -> cell: text, number, bool, None, or the bytes of a picture or sound. Never a path or a URL."""

Door = Literal["rest", "v2", "grpc", "ray", "warmup", "shadow"]

ColumnKind = Literal[
    "text",
    "image",
    "audio",
    "video",
    "images",
    "texts",
    "words",
    "graph",
    "timeseries",
    "number",
    "category",
    "boolean",
    "date",
]


@dataclass(frozen=True)
class ColumnInfo:
    """One column of a model's input."""

    name: str
    kind: ColumnKind
    input: str
    """the model input that reads it (a tabular input reads several columns)"""
    required: bool = False
    """never for an answer (any input may be absent): whether a *table* without the column is an error"""
    values: tuple[str, ...] = ()
    """the known values of a category"""


@dataclass(frozen=True)
class ModelInfo:
    """What the doors may tell of a model: its columns, its answer, its version. JSON-able through `to_dict`."""

    name: str
    version: str
    """content hash of the package"""
    task: str
    """classification, regression, forecast, ..."""
    mode: str
    """binary, multiclass, multilabel; number, numbers; "" where a task has one form"""
    classes: tuple[str, ...]
    """class names in the order of the probabilities; empty for regression"""
    targets: tuple[str, ...]
    """the columns predicted"""
    inputs: dict[str, str]
    """input name -> modality"""
    columns: tuple[ColumnInfo, ...]
    bytes: int
    fuseline: str
    """the version that wrote the package"""
    backend: str = "onnxruntime"
    """what runs its graph"""
    metric: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """the package's own test metrics"""
    notice: str = ""
    """the recipe's own words on what the model is not for; whoever shows its answers shows them"""
    profile: dict[str, Any] | None = None
    """the package's profile.json, for drift; left out of `to_dict(profile=False)`"""

    def to_dict(self, *, profile: bool = False) -> dict[str, Any]:
        out = asdict(replace(self, profile=None))  # which would be copied through and through: it is large
        del out["profile"]
        return {**out, "profile": self.profile} if profile else out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelInfo:
        fields = dict(data)
        fields["columns"] = tuple(ColumnInfo(**{**c, "values": tuple(c["values"])}) for c in data["columns"])
        return cls(**{**fields, "classes": tuple(fields["classes"]), "targets": tuple(fields["targets"])})


@dataclass(frozen=True)
class Call:
    """One request to one model, whatever door it came through."""

    model: str
    rows: Sequence[Row]
    id: str
    """request id: the caller's, or made"""
    version: str | None = None
    """None: the router chooses (canary shares)"""
    deadline: float | None = None
    """`time.monotonic()` after which nobody wants the answer; None: the settings' longest"""
    door: Door = "rest"
    key: str | None = None
    """name of the API key, for logs"""
    contributions: bool = False
    """also say what each input contributed: costs up to 2^M rows a row"""
    embed: bool = False
    """also give each row's fused embedding"""


@dataclass(frozen=True)
class Wish:
    """How a caller wants a text written."""

    how: Mapping[str, Any] = field(default_factory=dict)
    """options of decoding that differ from the package's own"""
    stop: tuple[str, ...] = ()
    """texts that end the answer"""


@dataclass(frozen=True)
class RowSeen:
    """What an observer may keep of one row: never the cells themselves, only statistics of them."""

    answer: Answer
    stats: dict[str, float | str] | None = None
    """`input.statistic` -> value, as profile.json names them; None where the row was not sampled"""
    embedding: tuple[float, ...] | None = None
    """the fused embedding; None where not sampled"""


@dataclass(frozen=True)
class Reply:
    """One request's answers, in the order of its rows. A bad row carries its error; the rest have answers."""

    model: str
    version: str
    id: str
    answers: tuple[Answer, ...]
    queue_seconds: float
    """longest wait of a row between decoding and the start of its batch"""
    compute_seconds: float
    """time inside the graph, of the batches that held these rows"""
    batch_sizes: tuple[int, ...] = ()
    """rows of each batch that held rows of this request"""
    executions: float = 0.0
    """this request's part of those batches; over all requests it adds up to the number of batches"""
    contributions: tuple[dict[str, Any] | None, ...] = ()
    """one a row where the call asked: {"class", "base", "inputs": {input: share}}; None for a bad row"""
    embeddings: tuple[tuple[float, ...] | None, ...] = ()
    """one a row where the call asked"""


@dataclass(frozen=True)
class Event:
    """What an observer sees of one request, after it was answered or refused."""

    call: Call
    code: str
    """ok, or the error's code: overloaded, deadline, cancelled, bad_rows, worker_died, ..."""
    seconds: float
    """from the core's door to the answer"""
    reply: Reply | None = None
    rows: tuple[RowSeen, ...] = ()
    version: str = ""


@dataclass(frozen=True)
class Gauge:
    """The core's state, a snapshot: what a scrape or a page shows."""

    model: str
    waiting_rows: int
    """rows accepted and not yet answered"""
    limit_rows: int
    versions: dict[str, float]
    """version -> share of traffic"""
    ready: bool
    workers: int
    restarts: int


class Observer(Protocol):
    """Watches the service. Called on the event loop after a request ended: must be quick and may not raise."""

    def wants(self, call: Call) -> bool:
        """Whether this request's rows shall carry statistics and embeddings (they cost a little to compute)."""
        ...

    def loaded(self, info: ModelInfo) -> None:
        """A version was loaded and answers; `info.profile` is set."""
        ...

    def unloaded(self, model: str, version: str) -> None: ...

    def ended(self, event: Event) -> None: ...

    def status(self) -> dict[str, Any]:
        """What the console may show of this observer's knowledge: JSON values, bounded in size."""
        ...
