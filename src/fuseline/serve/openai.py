"""OpenAI's chat completions for packages that write texts: their parts of a message are the row's cells.

Of a conversation the last message of the user is the row: its texts, pictures and sounds fill the model's columns of
these kinds in their order; cells of other columns come in the further key `inputs`. No URL is fetched, ever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from fuseline.errors import FuselineError
from fuseline.serve.body import parse_json, read_body
from fuseline.serve.calls import ModelInfo, Reply, Wish
from fuseline.serve.events import Events, event, streamed
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.waiting import deadline_of, while_there
from fuseline.serve.words import as_json
from fuseline.serve.writing import Begun, begun, check_writes, stops, whole
from fuseline.tasks.decoding import read_decoding

READ: tuple[str, ...] = ("model", "messages", "stream", "stream_options", "temperature", "top_p", "stop", "seed")
READ += ("max_tokens", "max_completion_tokens", "inputs")
IDLE = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
"""say nothing about the text, and are passed over"""
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "n": (1, None),
    "logprobs": (False, None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
    "tools": ([], None),
}
"""keys that only their usual value is taken of"""


@dataclass(frozen=True)
class Chat:
    row: dict[str, Any]
    wish: Wish
    stream: bool
    usage: bool
    """whether a stream ends with what it used"""


def router(service: Service, settings: Settings) -> APIRouter:
    routes = APIRouter(tags=["openai"])

    @routes.post("/v1/chat/completions", summary="OpenAI-style chat, for models that write texts")
    async def completions(request: Request) -> Response:
        call = begun(request, "", None)
        try:
            data = parse_json(await read_body(request, settings), settings)
            model = _model_of(data)
            call = replace(call, model=model)
            check_writes(service, model, None)
            chat = read_chat(data, service.info(model))
            deadline = deadline_of(request.headers.get("x-deadline-ms"), call.since)
            call = replace(call, rows=[chat.row], deadline=deadline)
        except FuselineError as error:
            service.refused(call, error)
            raise
        if chat.stream:
            return await streamed(request, _chunks(service, call, chat))
        return as_json(completion(await while_there(request, whole(service, call, chat.wish)), int(time.time())))

    return routes


def listed(infos: Sequence[ModelInfo]) -> list[dict[str, Any]]:
    """Models as OpenAI's list names them: each once."""
    return [
        {"id": n, "object": "model", "created": 0, "owned_by": "fuseline"} for n in dict.fromkeys(i.name for i in infos)
    ]


def _bad(message: str, hint: str = "") -> FuselineError:
    return FuselineError("bad_request", message, hint)


def _model_of(data: Any) -> str:
    if not isinstance(data, dict) or not isinstance(data.get("model"), str):
        raise _bad("the body names no model", 'send {"model": name, "messages": [...]}')
    return str(data["model"])


def read_chat(data: Mapping[str, Any], info: ModelInfo) -> Chat:
    """What a body asks of a model. Raises FuselineError ``bad_request``."""
    for key, value in data.items():
        if key in PLAIN and value not in PLAIN[key]:
            raise _bad(f"`{key}` cannot be {str(value)[:60]} here", "leave it out")
        if key not in READ and key not in IDLE and key not in PLAIN:
            raise _bad(f"unknown key {key[:60]!r}", f"known: {', '.join(READ)}")
    stream, options = data.get("stream") or False, data.get("stream_options") or {}
    if not isinstance(stream, bool) or not isinstance(options, dict):
        raise _bad("`stream` is true or false, `stream_options` a mapping")
    return Chat(
        row_of(data.get("messages"), data.get("inputs"), info),
        Wish(_how(data), stops(data.get("stop"))),
        stream,
        options.get("include_usage") is True,
    )


def _how(data: Mapping[str, Any]) -> dict[str, Any]:
    """Their sampling as ours: temperature 0 is the likeliest token; none at all is the package's own way."""
    how: dict[str, Any] = {}
    for theirs, ours in (("max_tokens",) * 2, ("max_completion_tokens", "max_tokens"), ("seed",) * 2, ("top_p",) * 2):
        if data.get(theirs) is not None:
            how[ours] = data[theirs]
    temperature = data.get("temperature")
    if temperature == 0:
        how["strategy"] = "greedy"
    elif temperature is not None:
        how |= {"strategy": "sample", "temperature": temperature}
    elif how.get("top_p", 1) not in (1, 1.0):
        how["strategy"] = "sample"
    read_decoding(how)
    return how


def row_of(messages: Any, inputs: Any, info: ModelInfo) -> dict[str, Any]:
    """The row of a conversation. Raises FuselineError ``bad_request``."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages) or not messages:
        raise _bad("`messages` is not a list of messages")
    row: dict[str, Any] = {}
    if inputs is not None:
        if not isinstance(inputs, dict):
            raise _bad("`inputs` is not a mapping of column to cell")
        row |= inputs
    last = next((m for m in reversed(messages) if m.get("role") == "user"), None)
    content = last.get("content") if last is not None else None
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
        raise _bad("a message's `content` is not a text or a list of parts")
    for part in parts:
        kind, cell = _cell(part)
        free = [c.name for c in info.columns if c.kind == kind and c.name not in row]
        if not free:
            count = sum(c.kind == kind for c in info.columns)
            raise _bad(f"{info.name} reads {count} {kind} parts, the message has more", "see the model's columns")
        if cell:
            row[free[0]] = cell
    return row


def _cell(part: Mapping[str, Any]) -> tuple[str, str]:
    """A part's kind of column, and its cell."""
    match part.get("type"):
        case "text" if isinstance(part.get("text"), str):
            return "text", part["text"]
        case "image_url":
            given = part.get("image_url")
            url = given.get("url") if isinstance(given, dict) else given
            if not isinstance(url, str) or not url.startswith("data:"):
                raise _bad("`image_url` is not a data URI, and no URL is fetched", "send data:image/png;base64,...")
            return "image", url
        case "input_audio":
            given = part.get("input_audio")
            sound = given.get("data") if isinstance(given, dict) else None
            if not isinstance(sound, str):
                raise _bad("`input_audio` has no base64 `data`")
            return "audio", sound
    raise _bad(f"a part of type {str(part.get('type'))[:40]!r} is not read", "text, image_url (data URI), input_audio")


def _head(reply_id: str, model: str, created: int, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{reply_id}", "object": kind, "created": created, "model": model}


def _usage(reply: Reply) -> dict[str, int]:
    """Tokens of the answer. Inputs are no tokens of its vocabulary: they count as none."""
    written = int((reply.answers[0].details or {}).get("tokens", 0))
    return {"prompt_tokens": 0, "completion_tokens": written, "total_tokens": written}


def _finish(reply: Reply) -> str:
    return str((reply.answers[0].details or {}).get("finish", "stop"))


def _based(reply: Reply) -> dict[str, Any]:
    answer = reply.answers[0]
    return {"version": reply.version, "used": [*answer.used], "absent": [*answer.absent], "notes": answer.notes}


def completion(reply: Reply, created: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.answers[0].value, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
    head = _head(reply.id, reply.model, created, "chat.completion")
    return {**head, "choices": [choice], "usage": _usage(reply), "fuseline": _based(reply)}


async def _chunks(service: Service, call: Begun, chat: Chat) -> Events:
    head = _head(call.id, call.model, int(time.time()), "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})

    first = True
    async with aclosing(service.write(call, chat.wish)) as pieces:
        async for piece in pieces:
            if first:
                first = False
                yield chunk({"role": "assistant", "content": ""})
            if isinstance(piece, str):
                yield chunk({"content": piece})
                continue
            yield chunk({}, _finish(piece), fuseline=_based(piece))
            if chat.usage:
                yield event({**head, "choices": [], "usage": _usage(piece)})
            yield event("[DONE]")
