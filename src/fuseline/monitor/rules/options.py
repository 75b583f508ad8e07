"""What a monitoring folder is written for: the objectives, the servers, and where alerts are sent."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from fuseline.errors import FuselineError
from fuseline.recipe import Frozen

MINUTE, HOUR, DAY = 60, 3600, 86_400
UNSET = "http://set-your-webhook.invalid/"
"""`.invalid` never resolves (RFC 2606), so that an unset receiver fails loudly in Alertmanager's log"""

_PORT = r"(?::(?P<port>\d{1,5}))"
_TARGET = re.compile(rf"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]){_PORT}")


class Options(Frozen):
    """The options of `fuseline monitor init`; the local alerts read the same objectives."""

    objective_ms: float = Field(1000.0, gt=0, description="latency objective: a slower request spends budget")
    slo: float = Field(
        99.5,
        ge=95,
        lt=100,
        # a burn of 14.4 budgets must still be a possible share of requests: 14.4 x 5 % = 72 %
        description="percent of requests that shall be answered, and answered within the objective",
    )
    targets: tuple[str, ...] = Field(("127.0.0.1:8080",), min_length=1, description="servers to scrape, host:port")
    alertmanager: str = Field("127.0.0.1:9093", description="the Alertmanager that Prometheus tells, host:port")
    webhook: str | None = Field(
        None, description="URL that Alertmanager posts alerts to; default: a marked placeholder"
    )
    scrape_seconds: float = Field(15.0, gt=0, description="seconds between two scrapes")
    time_scale: float = Field(1.0, gt=0, le=1, description="shortens every window and wait; for rehearsals and tests")

    @field_validator("targets", "alertmanager")
    @classmethod
    def _is_host_and_port(cls, value: Any) -> Any:
        for target in (value,) if isinstance(value, str) else value:
            match = _TARGET.fullmatch(target)
            if match is None or not 1 <= int(match["port"]) <= 65535:
                raise ValueError(f"{target!r} is not host:port, e.g. model.example:8080")
        return value

    @field_validator("webhook")
    @classmethod
    def _is_a_web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ValueError(f"{value!r} is not an http or https address")
        return value

    @property
    def budget(self) -> float:
        """The share of requests that may fail (or be slow): 0.005 for 99.5 %."""
        return round(1 - self.slo / 100, 9)

    @property
    def objective(self) -> float:
        """Seconds."""
        return self.objective_ms / 1000

    def span(self, seconds: float) -> str:
        """`seconds`, scaled, as Prometheus writes durations; one millisecond at least."""
        return duration(seconds * self.time_scale)


def duration(seconds: float) -> str:
    """90 -> `90s`, 3600 -> `1h`, 0.25 -> `250ms`."""
    left = max(round(seconds * 1000), 1)
    for unit, size in (("d", DAY * 1000), ("h", HOUR * 1000), ("m", MINUTE * 1000), ("s", 1000)):
        if left % size == 0:
            return f"{left // size}{unit}"
    return f"{left}ms"


def read(values: dict[str, Any]) -> Options:
    """Options from a command line. Raises FuselineError ``bad_options`` that names each option at fault."""
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        said = [
            f"--{'-'.join(str(e['loc'][0]).split('_'))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise FuselineError("bad_options", "; ".join(said), "see `fuseline monitor init --help`") from None
