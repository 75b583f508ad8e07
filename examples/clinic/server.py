"""What the page's program asks of the model server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from examples.stages import ask, post

NEAREST = "train"
"""the index of the training rows, as the server knows it"""
EXPLAIN_SECONDS = 180.0
GRID = 8
"""patches along each side of the picture"""
MOST_PARTS = 64
Row = Mapping[str, Any]


class Server:
    """A model by name. Every method raises FuselineError with the server's own code and words."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model

    def predict(self, row: Row) -> dict[str, Any]:
        return ask(self.url, self.model, [dict(row)])[0]

    def explain(self, row: Row, of: str) -> dict[str, Any]:
        """Of one target's answered class: each input's share, patches and words, what if it were absent."""
        body = {"rows": [dict(row)], "of": of, "inside": True, "grid": GRID, "most_parts": MOST_PARTS}
        found = post(f"{self.url}/v1/models/{self.model}/explain", body, seconds=EXPLAIN_SECONDS)
        first: dict[str, Any] = found["rows"][0]
        return first

    def nearest(self, row: Row, count: int) -> list[dict[str, Any]]:
        """Training rows by fused embedding: `id` of the table, `score` the cosine."""
        found = post(f"{self.url}/search", {"rows": [dict(row)], "k": count, "index": NEAREST})
        hits: list[dict[str, Any]] = found["results"][0]["hits"]
        return hits
