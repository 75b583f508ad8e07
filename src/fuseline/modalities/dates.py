"""Dates and times in the ways people write them, and the numbers made of them."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, Literal, NamedTuple

from fuseline.modalities.cells import bad_cell, shorten

SlashOrder = Literal["dmy", "mdy"]
DAY_PARTS = ("days", "year_sin", "year_cos", "weekday_sin", "weekday_cos")
HOUR_PARTS = ("hour_sin", "hour_cos")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAME = r"(?P<name>[A-Za-z]{3,9})\.?"
_TIME = (
    r"(?:[T ]\s*(?P<h>\d{1,2}):(?P<min>\d{2})(?::(?P<s>\d{2})(?:[.,]\d{1,9})?)?\s*(?P<half>[AaPp][Mm])?"
    r"\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?)?"
)
_ORDERS = tuple(
    re.compile(pattern + _TIME, re.ASCII)
    for pattern in (
        r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})",
        r"(?P<y>\d{4})/(?P<m>\d{1,2})/(?P<d>\d{1,2})",
        r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})",
        r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
        r"(?P<d>\d{1,2})[ -]" + _NAME + r"[ -](?P<y>\d{4})",
        _NAME + r" (?P<d>\d{1,2}),? (?P<y>\d{4})",
    )
)
_SLASHED = re.compile(r"(?P<a>\d{1,2})/(?P<b>\d{1,2})/(?P<y>\d{4})" + _TIME, re.ASCII)
_EPOCH = datetime.datetime(2000, 1, 1)


class Moment(NamedTuple):
    when: datetime.datetime
    """as the clock on the wall showed it: an offset from UTC is dropped"""
    timed: bool
    """whether the cell held a time of day"""


def parse_moment(cell: Any, column: str, slash_dates: SlashOrder | None) -> Moment:
    """A date cell: Python dates, ISO 8601, 2020/03/01, 1.3.2020, 20200301, 1 Mar 2020, March 1, 2020; each with a time.

    1/3/2020 is read only where `slash_dates` says how: its order differs between countries. Raises ``bad_cell``.
    """
    if isinstance(cell, datetime.datetime):
        return Moment(cell.replace(tzinfo=None), timed=True)
    if isinstance(cell, datetime.date):
        return Moment(datetime.datetime(cell.year, cell.month, cell.day), timed=False)
    if hasattr(cell, "dtype") and str(getattr(cell, "dtype", "")).startswith("datetime64"):
        return parse_moment(cell.astype("datetime64[us]").item(), column, slash_dates)
    text = cell.strip() if isinstance(cell, str) else str(cell) if type(cell) is int else ""
    slashed = _SLASHED.fullmatch(text)
    if slashed and slash_dates is None:
        hint = "write it as 2020-03-01, or set the input's slash_dates to dmy or mdy"
        raise bad_cell(column, f"{shorten(text)} may be day/month or month/day", hint)
    match = slashed or next((m for m in (order.fullmatch(text) for order in _ORDERS) if m), None)
    if match is None:
        raise bad_cell(column, f"{shorten(cell)} is no date", "write it as 2020-03-01 or 2020-03-01 13:45")
    try:
        return _moment(match.groupdict(), slash_dates)
    except ValueError as error:
        raise bad_cell(column, f"{shorten(cell)} is no date: {error}", "correct it, or leave the cell empty") from None


def _moment(parts: dict[str, Any], slash_dates: SlashOrder | None) -> Moment:
    if "a" in parts:
        day, month = (parts["a"], parts["b"]) if slash_dates == "dmy" else (parts["b"], parts["a"])
    else:
        day, month = parts["d"], parts.get("m")
    if parts.get("name"):
        name = parts["name"].lower()
        if name[:3] not in _MONTHS:
            raise ValueError(f"no month is called {parts['name']}")
        month = _MONTHS.index(name[:3]) + 1
    hour, minute, second = (int(parts[k] or 0) for k in ("h", "min", "s"))
    if parts["half"]:
        if not 1 <= hour <= 12:
            raise ValueError("hour must be in 1..12 before am or pm")
        hour = hour % 12 + (12 if parts["half"].lower() == "pm" else 0)
    when = datetime.datetime(int(parts["y"]), int(month), int(day), hour, minute, min(second, 59))
    return Moment(when, timed=parts["h"] is not None)


def day_numbers(moment: Moment) -> list[float]:
    """`DAY_PARTS`: days since 2000-01-01, then sine and cosine of the year's and the week's turn."""
    when = moment.when
    days = (when - _EPOCH).total_seconds() / 86400
    year = 2 * math.pi * (when.timetuple().tm_yday - 1) / 365.25
    week = 2 * math.pi * when.weekday() / 7
    return [days, math.sin(year), math.cos(year), math.sin(week), math.cos(week)]


def hour_numbers(moment: Moment) -> list[float]:
    """`HOUR_PARTS`: sine and cosine of the day's turn; NaN where the cell held no time."""
    if not moment.timed:
        return [math.nan, math.nan]
    turn = 2 * math.pi * (moment.when.hour + moment.when.minute / 60) / 24
    return [math.sin(turn), math.cos(turn)]
