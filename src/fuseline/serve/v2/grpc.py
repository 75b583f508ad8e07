"""The protocol over gRPC (extra: grpc)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fuseline.errors import FuselineError
from fuseline.serve.keys import Keys
from fuseline.serve.settings import Settings
from fuseline.serve.status import GRPC, status_of
from fuseline.serve.v2 import about
from fuseline.serve.v2.infer import Caller, Core, infer, is_request_id, new_request_id
from fuseline.serve.v2.tensors import text_of

log = logging.getLogger(__name__)
access = logging.getLogger("fuseline.access")

_OPEN = ("ServerLive", "ServerReady")
"""for probes, which have no key"""


@dataclass(frozen=True)
class Listening:
    server: Any
    """grpc.aio.Server"""
    port: int

    async def stop(self, grace: float) -> None:
        """Take no new calls, and give those in flight `grace` seconds."""
        await self.server.stop(grace)


async def start(service: Core, settings: Settings, keys: Keys | None = None) -> Listening:
    """Listen on `settings.grpc_port` (0: any free one), without TLS: a proxy's or a mesh's work.

    Raises FuselineError ``missing_extra`` without grpcio, ``port_in_use``, ``bad_settings`` where keys are asked for
    and not given.
    """
    try:
        import grpc
        from google.protobuf.message import DecodeError

        from fuseline.serve.v2.messages import SERVICE, message, methods
    except ImportError:
        raise FuselineError("missing_extra", "gRPC needs grpcio", "pip install 'fuseline[grpc]'") from None
    if settings.keys is not None and keys is None:  # else this port would be the way around them
        raise FuselineError("bad_settings", "API keys are asked for, but the gRPC door was given none")
    door = _Door(service, settings)

    def handler(name: str, asked: str) -> Any:
        async def call(data: bytes, context: Any) -> bytes:
            start, code = time.monotonic(), "CANCELLED"
            metadata = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
            given = _Context(context, metadata)
            try:
                if keys is not None and name not in _OPEN:
                    given.key = keys.check(_secret(metadata))
                answer = await getattr(door, name)(message(asked).FromString(data), given)
                code = "OK"
                return bytes(answer.SerializeToString())
            except DecodeError:
                code, text = _status(FuselineError("bad_request", f"the message is no {asked}"))
            except FuselineError as error:
                code, text = _status(error)
            except Exception:
                log.exception("%s failed", name)
                code, text = _status(FuselineError("internal", ""))
            finally:  # of a cancelled call too
                ms = round((time.monotonic() - start) * 1e3, 2)
                access.info("gRPC %s", name, extra={"id": given.request_id, "status": code, "ms": ms})
            await context.abort(grpc.StatusCode[code], text)
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(call)  # bytes in and out: a broken message is an answer of ours too

    limit = int(settings.max_body_mb * 2**20)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", int(settings.max_header_kb * 1024)),
            ("grpc.so_reuseport", 0),  # else a second server would silently share the port
        ]
    )
    handlers = {name: handler(name, asked) for name, (asked, _) in methods().items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port or 0}")
    except RuntimeError:
        port = 0
    if port == 0:
        text = f"cannot listen on {settings.host}, port {settings.grpc_port}"
        raise FuselineError("port_in_use", text, "is another server there? choose another --grpc-port")
    await server.start()
    return Listening(server, port)


def _status(error: FuselineError) -> tuple[str, str]:
    """Name of the gRPC code, and the text: bounded, since it travels as a header."""
    status = status_of(error.code)
    if status == 500:
        if error.message:
            log.error("a call failed inside: %s", text_of(error))
        return "INTERNAL", "internal error"
    return GRPC[status], text_of(error)[:2000]


def _secret(metadata: Mapping[str, str]) -> str | None:
    """The API key of a call: `x-api-key`, or `authorization: Bearer KEY`."""
    bearer = metadata.get("authorization", "")
    return metadata.get("x-api-key") or (bearer[7:].strip() if bearer[:7].lower() == "bearer " else None)


class _Context:
    """What a method needs of its call."""

    def __init__(self, context: Any, metadata: Mapping[str, str]) -> None:
        remaining = context.time_remaining()
        self.deadline = None if remaining is None else time.monotonic() + remaining
        given = metadata.get("x-request-id", "")
        self.request_id = given if is_request_id(given) else new_request_id()
        self.key: str | None = None


class _Door:
    """The methods, by their names in the protocol."""

    def __init__(self, service: Core, settings: Settings) -> None:
        from google.protobuf.json_format import ParseDict

        from fuseline.serve.v2 import messages

        self.service, self.settings = service, settings
        self._messages = messages
        self._fill: Callable[[dict[str, Any], str], Any] = lambda data, name: ParseDict(data, messages.message(name)())

    async def ServerLive(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        return self._fill({"live": self.service.live()}, "ServerLiveResponse")

    async def ServerReady(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        return self._fill({"ready": self.service.ready()}, "ServerReadyResponse")

    async def ModelReady(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        self.service.info(asked.name, asked.version or None)
        ready = self.service.ready(asked.name, asked.version or None)
        return self._fill({"ready": ready}, "ModelReadyResponse")

    async def ServerMetadata(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        return self._fill(about.server(about.GRPC_EXTENSIONS), "ServerMetadataResponse")

    async def ModelMetadata(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        data = about.metadata(self.service, asked.name, asked.version or None)
        return self._fill(data, "ModelMetadataResponse")

    async def ModelConfig(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        info = self.service.info(asked.name, asked.version or None)
        return self._fill({"config": about.config(info, self.settings)}, "ModelConfigResponse")

    async def ModelStatistics(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        data = about.statistics(self.service, asked.name or None, asked.version or None)
        return self._fill(data, "ModelStatisticsResponse")

    async def RepositoryIndex(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        models = about.index(self.service, only_ready=asked.ready)
        return self._fill({"models": models}, "RepositoryIndexResponse")

    async def ModelInfer(self, asked: Any, context: _Context) -> Any:  # noqa: N802
        self.service.info(asked.model_name, asked.model_version or None)
        request = self._messages.request_of(asked, self.settings)
        caller = Caller(
            model=asked.model_name,
            version=asked.model_version or None,
            door="grpc",
            request_id=context.request_id,
            deadline=context.deadline,
            key=context.key,
        )
        # A caller who leaves, or whose deadline passes, has this coroutine cancelled, and the service's with it.
        done = await infer(self.service, self.settings, request, caller)
        return self._messages.response_of(done, raw=bool(asked.raw_input_contents))
