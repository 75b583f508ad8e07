"""How unlike the training rows an input is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fuseline.data.profile import ProfileBuilder
from fuseline.modalities.odd import Oddness, fit_odd, surprise


@pytest.fixture(scope="module")
def profile() -> dict[str, object]:
    rng, builder = np.random.default_rng(0), ProfileBuilder()
    for _ in range(2000):
        builder.add("xray", {"brightness": float(rng.normal(0.5, 0.1)), "view": str(rng.choice(["AP", "PA"]))})
    return json.loads(json.dumps(builder.to_dict()))  # type: ignore[no-any-return]


def test_ordinary_ones_lie_in_the_middle_and_strange_ones_above_all(profile: dict[str, object]) -> None:
    rng = np.random.default_rng(1)
    held = [{"brightness": float(v), "view": "AP"} for v in rng.normal(0.5, 0.1, 300)]
    odd = Oddness(profile, json.loads(json.dumps(fit_odd(profile, {"xray": held}))))
    assert odd.rows == {"xray": 300}
    shares = [odd.share("xray", {"brightness": float(v), "view": "AP"}) for v in rng.normal(0.5, 0.1, 300)]
    assert 0.4 < np.mean([s for s in shares if s is not None]) < 0.6
    assert odd.share("xray", {"brightness": 5.0, "view": "AP"}) == 1.0
    assert odd.share("xray", {"brightness": 0.5, "view": "lateral"}) >= 0.98
    assert odd.share("notes", {"tokens": 3.0}) is None


def test_the_farther_out_the_more_surprising(profile: dict[str, object]) -> None:
    sketch = profile["xray.brightness"]
    assert isinstance(sketch, dict)
    values = [surprise(sketch, v) for v in (0.5, 0.7, 0.9, 2.0, 20.0, -20.0)]
    assert values[:5] == sorted(values[:5])
    assert values[-1] > values[3]
    assert np.isfinite(surprise(sketch, float("nan")))
    assert surprise({"kind": "number", "count": 0}, 1.0) == 0.0


def test_one_value_alone() -> None:
    builder = ProfileBuilder()
    for _ in range(10):
        builder.add("n", {"x": 3.0})
    sketch = builder.to_dict()["n.x"]
    assert surprise(sketch, 3.0) == 0.0
    assert surprise(sketch, 4.0) > 1
