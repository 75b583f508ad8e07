"""Logs as JSON lines, with request ids and without the content of a cell."""

from __future__ import annotations

import datetime
import json
import logging
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuseline.serve.calls import Call, Event, ModelInfo

FIELDS = ("request_id", "model", "version", "door", "code", "key", "rows", "bad_rows", "ms", "queue_ms", "compute_ms")
"""what a record may carry beside its message (logging's `extra`)"""
log = logging.getLogger("fuseline.requests")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the known extra fields.

    Of an exception only its type and place are kept: the text of one may quote a cell.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        out: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        out |= {key: getattr(record, key) for key in FIELDS if getattr(record, key, None) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            out["exception"] = record.exc_info[0].__name__
            out["at"] = [f"{f.filename}:{f.lineno} {f.name}" for f in frames[-12:]]
        return json.dumps(out, ensure_ascii=True, default=str)


class RequestLog:
    """An observer that logs one line a request: info where it was answered, warning where the server failed it."""

    name = "requests"

    def wants(self, call: Call) -> bool:
        return False

    def loaded(self, info: ModelInfo) -> None:
        log.info("loaded", extra={"model": info.name, "version": info.version})

    def unloaded(self, model: str, version: str) -> None:
        log.info("unloaded", extra={"model": model, "version": version})

    def ended(self, event: Event) -> None:
        level = logging.WARNING if event.code in ("internal", "worker_died", "deadline", "overloaded") else logging.INFO
        if not log.isEnabledFor(level):
            return
        reply = event.reply
        extra = {
            "request_id": event.call.id,
            "model": event.call.model,
            "version": event.version or None,
            "door": event.call.door,
            "code": event.code,
            "key": event.call.key,
            "rows": len(event.call.rows),
            "ms": round(1000 * event.seconds, 2),
        }
        if reply is not None:
            extra |= {
                "bad_rows": sum(a.error is not None for a in reply.answers),
                "queue_ms": round(1000 * reply.queue_seconds, 2),
                "compute_ms": round(1000 * reply.compute_seconds, 2),
            }
        log.log(level, "request", extra=extra)

    def status(self) -> dict[str, Any]:
        return {}
