"""One inference, whatever door it came through: tensors in, tensors out, and the deadline and id it ran under."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fuseline.errors import FuselineError
from fuseline.serve.calls import Call, Door, ModelInfo, Reply
from fuseline.serve.settings import Settings
from fuseline.serve.v2.codec import InferRequest, Tensor
from fuseline.serve.v2.elements import bad
from fuseline.serve.v2.tensors import check_outputs, rows_of, tensors_of


class Core(Protocol):
    """What the protocol needs of the service."""

    async def predict(self, call: Call) -> Reply: ...

    def refused(self, call: Call, error: FuselineError) -> None: ...

    def check_room(self, name: str, rows: int = 1) -> None: ...

    def models(self) -> list[ModelInfo]: ...

    def info(self, name: str, version: str | None = None) -> ModelInfo: ...

    def ready(self, name: str | None = None, version: str | None = None) -> bool: ...

    def live(self) -> bool: ...

    def stats(self, name: str, version: str | None = None) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Caller:
    """What a door knows of the request beside its body."""

    model: str
    version: str | None
    door: Door
    request_id: str
    """for logs, where the body brings none"""
    deadline: float | None
    """`time.monotonic()`"""
    key: str | None = None

    def call(self) -> Call:
        """The call that it makes, still without rows."""
        return Call(self.model, (), self.request_id, self.version, self.deadline, self.door, self.key)


@dataclass(frozen=True)
class Inferred:
    head: dict[str, str]
    """model_name, model_version, and the id where the request had one"""
    tensors: list[Tensor]


async def infer(service: Core, settings: Settings, request: InferRequest, caller: Caller) -> Inferred:
    """Raises FuselineError. Cancelling it cancels the service's work."""
    call = caller.call()
    try:
        info = service.info(caller.model, caller.version)
        versions = {m.version: m for m in service.models() if m.name == info.name}
        check_outputs(request.outputs, info)
        limits = [d for d in (caller.deadline, _timeout(request)) if d is not None]
        id = request.id if is_request_id(request.id) else caller.request_id
        rows = rows_of(request.inputs, info, settings.max_rows)
        call = replace(call, rows=rows, id=id, deadline=min(limits, default=None))
    except FuselineError as error:
        service.refused(call, error)
        raise
    reply = await service.predict(call)
    info = versions.get(reply.version, info)  # a canary may have answered, whose classes are in another order
    head = {"model_name": reply.model, "model_version": reply.version}
    if request.id:
        head["id"] = request.id
    return Inferred(head, tensors_of(reply.answers, info, request))


def is_request_id(text: str) -> bool:
    """Whether logs may carry it: at most 128 printable ASCII characters."""
    return 0 < len(text) <= 128 and text.isascii() and text.isprintable()


def new_request_id() -> str:
    return uuid.uuid4().hex


def _timeout(request: InferRequest) -> float | None:
    """The parameter `timeout`, in microseconds as Triton has it; 0: none."""
    given = request.parameters.get("timeout")
    if given is None or given == 0:
        return None
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 20:
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise bad("the parameter `timeout` is not a number of microseconds")
    return time.monotonic() + given / 1e6
