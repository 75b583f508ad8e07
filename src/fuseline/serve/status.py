"""From an error's code to the status a caller sees: the one table, for HTTP and for gRPC."""

from __future__ import annotations

STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_model": 404,
    "unknown_version": 404,
    "not_found": 404,
    "not_allowed": 405,
    "too_large": 413,
    "headers_too_large": 431,
    "unsupported_type": 415,
    "bad_rows": 422,
    "bad_cell": 422,
    "unknown_column": 422,
    "cannot_explain": 422,
    "unsafe_path": 422,
    "overloaded": 429,
    "rate_limited": 429,
    "cancelled": 499,
    "internal": 500,
    "not_ready": 503,
    "draining": 503,
    "worker_died": 503,
    "deadline": 504,
}

GRPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "INVALID_ARGUMENT",  # not RESOURCE_EXHAUSTED: sending it again would not help
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP status -> name of the gRPC status code"""


def status_of(code: str) -> int:
    """500 for a code that is no caller's business: what it says is then not shown either."""
    return STATUS.get(code, 500)
