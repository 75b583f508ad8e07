from __future__ import annotations

import io
import json
import logging

import pytest
import watched

from fuseline.monitor.logs import JsonFormatter, RequestLog


@pytest.fixture
def lines() -> io.StringIO:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("fuseline.requests")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield out
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_one_line_a_request(lines: io.StringIO) -> None:
    log = RequestLog()
    log.ended(watched.event([*watched.events(1, seed=1)[0].rows, watched.failed()], "id-1"))
    log.ended(watched.event([], "id-2", code="overloaded", version=""))
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert first | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "fuseline.requests",
        "message": "request",
        "request_id": "id-1",
        "model": "clinic",
        "version": "v1",
        "door": "rest",
        "code": "ok",
        "rows": 6,
        "bad_rows": 1,
        "ms": 20.0,
        "queue_ms": 2.0,
        "compute_ms": 10.0,
    }
    assert (second["level"], second["code"]) == ("warning", "overloaded")
    assert "version" not in second
    assert "secret" not in lines.getvalue()


def test_no_newline_and_no_exception_text_gets_out(lines: io.StringIO) -> None:
    logger = logging.getLogger("fuseline.requests")
    logger.info("two\nlines \x1b[31m %s", "\udc80")
    try:
        int("the secret cell")
    except ValueError:
        logger.exception("failed")
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert len(found) == 2
    assert found[1]["exception"] == "ValueError"
    assert "test_logs.py" in found[1]["at"][0]
    assert "secret" not in lines.getvalue()
