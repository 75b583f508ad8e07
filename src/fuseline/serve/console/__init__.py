"""The page at /: plain files, no build step, nothing fetched but from the server itself. A door only mounts them."""

from __future__ import annotations

from functools import cache
from importlib import resources

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS = {
    # No inline code or style, no other host. Trusted types: the browser itself refuses innerHTML and its like, so a
    # class named <script> stays text even if a later edit of the page forgets to be careful.
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""What every one of the files is answered with."""


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """Path -> (content, content type). The page is at `/`, what it loads under `/console/`."""
    out: dict[str, tuple[bytes, str]] = {}
    for entry in resources.files(__name__).iterdir():
        kind = _TYPES.get(f".{entry.name.rpartition('.')[2]}")
        if kind is not None:
            out["/" if entry.name == "index.html" else f"/console/{entry.name}"] = (entry.read_bytes(), kind)
    return out
