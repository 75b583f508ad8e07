"""How a server behaves: every limit in one frozen model. Descriptions are the help texts of `fuseline serve`."""

from __future__ import annotations

from pydantic import Field

from fuseline.recipe import Frozen


class Settings(Frozen):
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0: every interface")
    port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0: any free one")
    grpc_port: int | None = Field(None, ge=0, le=65535, description="also speak gRPC here (extra: grpc)")
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="management routes, on 127.0.0.1 alone; default: there are none"
    )
    workers: int = Field(1, ge=1, le=64, description="processes that compute; each holds every model")
    threads: int | None = Field(
        None,
        ge=1,
        description="threads of one batch; default: the worker's share of the quota, for the quickest single answer; "
        "1: as many batches at once as there are cores, for the most answers a second",
    )

    max_batch_rows: int = Field(32, ge=1, le=4096, description="rows of a batch at most")
    max_wait_ms: float = Field(2.0, ge=0, le=1000, description="how long a row may wait for others to share its batch")
    max_batch_cost: float = Field(
        16.0, gt=0, description="cost of a batch at most; 1 is the cost of one row at every input's largest size"
    )
    queue_rows: int = Field(256, ge=1, description="rows of a model accepted and not yet answered; more get 429")
    max_streams: int = Field(
        16, ge=1, description="texts of a model that are written at the same time, step by step in turn; more get 429"
    )
    objective_ms: float = Field(
        1000.0, gt=0, description="latency objective: a request that would wait longer than this gets 429 at once"
    )
    deadline_ms: float = Field(30_000.0, gt=0, description="longest that a request may take")
    drain_seconds: float = Field(20.0, ge=0, description="how long SIGTERM waits for requests in flight")

    max_rows: int = Field(256, ge=1, description="rows of one request")
    max_explain_rows: int = Field(
        1024, ge=1, description="answers that one request for explanations may take; each is held decoded meanwhile"
    )
    max_body_mb: float = Field(32.0, gt=0, description="a request's body, compressed and decompressed")
    max_header_kb: float = Field(16.0, gt=0, description="a request's line and headers")
    max_json_depth: int = Field(16, ge=2, le=100, description="nesting of a JSON body")
    max_pixels: int = Field(25_000_000, ge=1, description="width x height of a picture that is decoded at all")

    keys: str | None = Field(None, description="file of API keys (see `fuseline keys`); default: no key is asked for")
    watch_seconds: float = Field(2.0, ge=0, description="how often replaced packages are looked for; 0: never")
    console: bool = Field(True, description="a page at /")
