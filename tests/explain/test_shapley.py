"""Shapley values: the axioms, and the estimate where there are too many inputs."""

from __future__ import annotations

import numpy as np
import pytest

from fuseline.explain.shapley import orders, prefixes, sampled, shapley, subsets

NAMES = ("a", "b", "c", "d")


def game(seed: int, names: tuple[str, ...] = NAMES) -> dict[frozenset[str], float]:
    rng = np.random.default_rng(seed)
    return {s: float(rng.normal()) for s in subsets(names)}


def test_the_axioms() -> None:
    v, w = game(0), game(1)
    values = shapley(NAMES, v)
    assert sum(values.values()) == pytest.approx(v[frozenset(NAMES)] - v[frozenset()], abs=1e-12)
    both = shapley(NAMES, {s: 2 * v[s] + w[s] for s in v})
    for name, other in shapley(NAMES, w).items():
        assert both[name] == pytest.approx(2 * values[name] + other)
    idle = {s: v[s - {"d"}] for s in v}
    assert shapley(NAMES, idle)["d"] == pytest.approx(0, abs=1e-12)
    alike = {s: float(len(s) ** 2) for s in v}
    assert len({round(x, 9) for x in shapley(NAMES, alike).values()}) == 1


def test_what_one_order_would_say_is_not_the_value() -> None:
    together = {s: float({"a", "b"} <= s) for s in game(0)}
    values = shapley(NAMES, together)
    assert (values["a"], values["b"]) == pytest.approx((0.5, 0.5))
    assert (values["c"], values["d"]) == pytest.approx((0.0, 0.0))


def test_random_orders_come_near_and_say_how_near() -> None:
    v = game(2)
    exact = shapley(NAMES, v)
    chosen = orders(NAMES, 400, seed=3)
    assert set(prefixes(chosen)) <= set(v)
    values, errors = sampled(chosen, v)
    assert sum(values.values()) == pytest.approx(v[frozenset(NAMES)] - v[frozenset()], abs=1e-9)
    for name in NAMES:
        assert abs(values[name] - exact[name]) < 4 * errors[name] + 1e-9
        assert 0 < errors[name] < 0.2
    few, wide = sampled(orders(NAMES, 20, seed=3), v)
    assert np.mean(list(wide.values())) > np.mean(list(errors.values()))
    assert orders(NAMES, 400, seed=3) == chosen
    assert few != values


def test_no_input_and_one() -> None:
    assert shapley((), {frozenset(): 0.3}) == {}
    assert shapley(("a",), {frozenset(): 0.3, frozenset("a"): 0.7}) == pytest.approx({"a": 0.4})
