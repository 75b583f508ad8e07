"""JSON as the people's API writes it: no NaN, any alphabet, half surrogates replaced."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response

from fuseline.package.files import finite


def as_json(data: Any, status: int = 200) -> Response:
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, headers={"content-type": "application/json"})
