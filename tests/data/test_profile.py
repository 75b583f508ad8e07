from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.data import profile
from fuseline.data.profile import CategorySketch, NumberSketch, ProfileBuilder


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=200))
def test_numbers_agree_with_numpy_and_are_json(values: list[float]) -> None:
    sketch = NumberSketch("x")
    for value in values:
        sketch.add(value)
    out = sketch.to_dict(len(values))
    json.dumps(out, allow_nan=False)
    finite = np.array([v for v in values if math.isfinite(v)])
    assert (out["count"], out["absent"]) == (len(finite), len(values) - len(finite))
    if len(finite):
        scale = max(1.0, float(np.abs(finite).max()))
        assert (out["min"], out["max"]) == (finite.min(), finite.max())
        assert out["mean"] == pytest.approx(finite.mean(), abs=1e-9 * scale)
        assert out["std"] == pytest.approx(finite.std(), abs=1e-6 * scale)
        assert len(out["quantiles"]) == 20
        assert out["quantiles"] == sorted(out["quantiles"])
        assert sum(out["histogram"]["shares"]) == pytest.approx(1)
        assert len(out["histogram"]["shares"]) == max(1, len(out["histogram"]["edges"]) - 1)


def test_a_long_stream_is_sampled_fairly_and_reproducibly() -> None:
    def run() -> dict[str, object]:
        sketch = NumberSketch("x")
        for i in range(50_000):
            sketch.add(float(i))
        return sketch.to_dict(50_000)

    out = run()
    assert out == run()
    assert np.abs(np.array(out["quantiles"]) - np.linspace(0, 49_999, 20)).max() < 1500


def test_categories_keep_the_commonest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_MOST_VALUES", 100)
    sketch = CategorySketch()
    for i in range(3000):
        sketch.add("да" if i % 3 else f"rare {i}")
    out = sketch.to_dict(3100)
    assert out["top"][0] == ["да", 2000]
    assert len(out["top"]) == 50
    assert sum(n for _, n in out["top"]) + out["other"] == out["count"] == 3000
    assert out["absent"] == 100
    assert out["distinct_is_exact"] is False


def test_the_builder_counts_rows_and_absent_cells() -> None:
    builder = ProfileBuilder()
    for i in range(10):
        builder.add("image", None if i < 4 else {"brightness": i / 10})
        builder.add("tabular", {"pm2.5": float(i)} | ({"sex": "f"} if i % 2 else {}))
    out = builder.to_dict()
    assert set(out) == {"image", "image.brightness", "tabular", "tabular.pm2.5", "tabular.sex"}
    assert out["image"] == {"kind": "input", "rows": 10, "absent": 4}
    assert (out["image.brightness"]["count"], out["image.brightness"]["absent"]) == (6, 4)
    assert (out["tabular.sex"]["kind"], out["tabular.sex"]["absent"]) == ("category", 5)
    assert out["tabular"]["absent"] == 0
    json.dumps(out, allow_nan=False)


def test_one_constant_value() -> None:
    sketch = NumberSketch("x")
    sketch.add(3.5)
    assert sketch.to_dict(1)["histogram"] == {"edges": [3.5], "shares": [1.0]}
    assert NumberSketch("y").to_dict(4) == {"kind": "number", "count": 0, "absent": 4}
