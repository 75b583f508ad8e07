"""Joining a cluster: what is said where that cannot be. Real ones are met in test_ray_data and serve/test_ray."""

from __future__ import annotations

import importlib.util

import pytest

from fuseline.errors import FuselineError
from fuseline.runtime.raycluster import joined


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FuselineError, match=r"needs ray") as caught, joined():
        pass
    assert caught.value.code == "missing_extra"
    assert "fuseline[ray]" in caught.value.hint


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    for address in ("127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"):
        with pytest.raises(FuselineError) as caught, joined(address):
            pass
        assert caught.value.code == "no_such_cluster"
