"""Working for a caller for as long as the caller is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from fuseline.errors import FuselineError

T = TypeVar("T")


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled where the caller hangs up first. The body must have been read.

    Raises FuselineError ``cancelled``.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return await task
        raise FuselineError("cancelled", "the caller has gone")
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def deadline_of(milliseconds: str | None, start: float) -> float | None:
    """The header X-Deadline-Ms, counted from `start` (`time.monotonic()`); None where it was not sent.

    Raises FuselineError ``bad_request``.
    """
    if milliseconds is None:
        return None
    try:
        value = float(milliseconds)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise FuselineError("bad_request", "X-Deadline-Ms is not a number of milliseconds above 0")
    return start + value / 1e3
