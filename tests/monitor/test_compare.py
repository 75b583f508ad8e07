from __future__ import annotations

import copy
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.stats
import watched

from fuseline.monitor import reference
from fuseline.monitor.compare import DriftResult, compare
from fuseline.monitor.seen import OPEN, Redaction, hashed, kept_stats, records, stat_kinds, table
from fuseline.monitor.window import Window


def frame_of(profile: dict[str, Any], events: list[Any], redaction: Redaction = OPEN) -> pl.DataFrame:
    info = watched.info(profile=profile)
    rows = [r for e in events for r in records(e, info, redaction)]
    return table(rows, kept_stats(profile, redaction))


def check(profile: dict[str, Any], events: list[Any], **options: Any) -> DriftResult:
    return compare(profile, Window.of(frame_of(profile, events), profile), **options)


def alarms(result: DriftResult) -> set[str]:
    return {f.feature for f in result.findings if f.alarm}


def test_nothing_changed_is_no_alarm_in_hundreds_of_windows(profile: dict[str, Any]) -> None:
    """At most 1 % of checks alarm over all features together; the set level here is 0.1 %."""
    pool = frame_of(profile, watched.events(1200, seed=9))
    rng = np.random.default_rng(0)
    found = []
    for size in (60, 250, 1000):
        for _ in range(100):
            window = Window.of(pool[rng.choice(len(pool), size, replace=False)], profile)
            result = compare(profile, window)
            assert len(result.findings) > 10
            if result.alarm:
                found.append((size, alarms(result)))
    assert len(found) <= 3, found


def darken(row: dict[str, Any]) -> dict[str, Any]:
    if "picture.brightness" in row["stats"]:
        row["stats"]["picture.brightness"] *= 0.7
    return row


def drop_notes(row: dict[str, Any]) -> dict[str, Any]:
    row["stats"] = {k: v for k, v in row["stats"].items() if not k.startswith("note.")}
    return row


def only_men(row: dict[str, Any]) -> dict[str, Any]:
    if "vitals.sex" in row["stats"]:
        row["stats"]["vitals.sex"] = "m"
    return row


def new_ward(row: dict[str, Any]) -> dict[str, Any]:
    if row["stats"].get("vitals.ward") in ("w0", "w1"):
        row["stats"]["vitals.ward"] = "(other)"
    return row


def no_sex(row: dict[str, Any]) -> dict[str, Any]:
    row["stats"].pop("vitals.sex", None)
    return row


def wider(row: dict[str, Any]) -> dict[str, Any]:
    if "picture.width" in row["stats"]:
        row["stats"]["picture.width"] = 1024.0
    return row


def narrower(row: dict[str, Any]) -> dict[str, Any]:
    if "picture.width" in row["stats"]:
        row["stats"]["picture.width"] = 8.0
    return row


def strange_words(row: dict[str, Any]) -> dict[str, Any]:
    if "note.unknown" in row["stats"] and int(row["stats"]["note.tokens"]) % 3 == 0:
        row["stats"]["note.unknown"] = 0.4
    return row


def sicker(row: dict[str, Any]) -> dict[str, Any]:
    row["sick"] = row["sick"] ** 0.4
    return row


def elsewhere(row: dict[str, Any]) -> dict[str, Any]:
    row["embedding"] = row["embedding"] * 1.6
    return row


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        (darken, "picture.brightness"),
        (drop_notes, "note absent"),
        (only_men, "vitals.sex"),
        (new_ward, "vitals.ward"),
        (no_sex, "vitals.sex absent"),
        (wider, "picture.width"),
        (narrower, "picture.width"),
        (strange_words, "note.unknown"),
        (sicker, "predictions label"),
        (elsewhere, "embedding"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_change_is_found_where_it_is(profile: dict[str, Any], change: Any, feature: str) -> None:
    found = check(profile, watched.events(60, seed=21, change=change))
    assert feature in alarms(found)
    if change is not sicker:
        assert alarms(found) == {feature}
    assert found.findings[0].alarm
    assert found.alarm


def test_words_name_what_changed(profile: dict[str, Any]) -> None:
    found = {f.feature: f for f in check(profile, watched.events(60, seed=21, change=only_men)).findings}
    assert "'f' in 0.0% of rows, was 5" in found["vitals.sex"].words or "'m' in 100.0%" in found["vitals.sex"].words
    assert found["vitals.sex"].test == "chi2"
    assert found["vitals.sex"].psi is not None
    dark = {f.feature: f for f in check(profile, watched.events(60, seed=21, change=darken)).findings}
    assert dark["picture.brightness"].words.startswith("median 0.3")


def test_broken_cells_are_an_alarm_of_their_column(profile: dict[str, Any]) -> None:
    rows = watched.events(60, seed=3)
    rows += [watched.event([watched.failed("picture")], f"bad{i}") for i in range(40)]
    found = check(profile, rows)
    assert "picture broken" in alarms(found)
    strange = [watched.event([watched.failed("<script>", "unknown_column")], f"bad{i}") for i in range(40)]
    assert "(unknown) broken" in alarms(check(profile, watched.events(60, seed=3) + strange))


def test_a_million_rows_do_not_alarm_on_nothing(profile: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    rows = 10**6
    calm = Window(
        rows=rows,
        read=rows,
        absent={"picture": round(rows * (profile["picture"]["absent"] / profile["picture"]["rows"] + 0.02))},
        numbers={"picture.brightness": rng.normal(0.525, 0.1, 700_000)},
    )
    found = compare(profile, calm)
    by = {f.feature: f for f in found.findings}
    assert by["picture absent"].p < 0.2
    assert by["picture.brightness"].p < 1e-3
    assert not found.alarm
    moved = Window(rows=rows, read=rows, numbers={"picture.brightness": rng.normal(0.56, 0.1, 700_000)})
    assert alarms(compare(profile, moved)) == {"picture.brightness"}


def test_what_may_drift_can_be_left_out(profile: dict[str, Any]) -> None:
    rows = watched.events(60, seed=21, change=darken)
    assert not check(profile, rows, ignore=["picture.brightness"]).alarm
    assert not check(profile, rows, ignore=["picture"]).alarm
    assert check(profile, rows, ignore=["note"]).alarm


def test_too_few_rows_and_no_profile_say_so(profile: dict[str, Any]) -> None:
    few = check(profile, watched.events(5, seed=1))
    assert not few.findings
    assert "too few" in few.notes[0]
    assert "no profile" in compare(None, Window(100)).notes[0]


def test_a_profile_of_an_older_package_still_serves(profile: dict[str, Any]) -> None:
    old = {k: copy.deepcopy(v) for k, v in profile.items() if k not in ("predictions", "embedding", "errors")}
    for sketch in old.values():
        sketch.pop("cdf", None)
    calm = check(old, watched.events(120, seed=5))
    assert not calm.alarm
    assert len([n for n in calm.notes if "not checked" in n]) == 3
    for change, feature in ((darken, "picture.brightness"), (wider, "picture.width"), (drop_notes, "note absent")):
        assert alarms(check(old, watched.events(60, seed=21, change=change))) == {feature}


def test_an_input_may_have_the_name_of_a_part(profile: dict[str, Any]) -> None:
    taken = profile | {"predictions": {"kind": "input", "rows": 10, "absent": 0}, "embedding": "nonsense"}
    found = check(taken, watched.events(60, seed=5))
    assert {"predictions label", "embedding"}.isdisjoint(f.feature for f in found.findings)


def test_redacted_statistics_are_no_absent_cells(profile: dict[str, Any]) -> None:
    hidden = Redaction(drop=frozenset({"vitals.age", "note"}), texts=True, labels=True, embeddings=True)
    frame = frame_of(profile, watched.events(60, seed=5), hidden)
    assert not any(c.startswith(("stats.note", "stats.vitals")) for c in frame.columns)
    assert set(frame["label"].unique()) == {hashed("yes"), hashed("no")}
    found = compare(profile, Window.of(frame, profile))
    assert not found.alarm
    assert "predictions label" in {f.feature for f in found.findings}
    assert any("vitals.age" in n and "note.tokens" in n for n in found.notes)
    dropped = frame_of(profile, watched.events(60, seed=5, change=drop_notes), hidden)
    assert alarms(compare(profile, Window.of(dropped, profile))) == {"note absent"}


def test_records_hold_no_cell_and_no_error_text(profile: dict[str, Any]) -> None:
    rows = [*watched.events(3, seed=5), watched.event([watched.failed()], "x" * 500)]
    frame = frame_of(profile, rows)
    assert "secret" not in frame.write_json()
    assert frame["request"].str.len_chars().max() == 128
    assert frame["error"].drop_nulls().to_list() == ["bad_cell"]
    assert frame["row"].to_list() == [*range(5)] * 3 + [0]


def test_reference_bins_catch_what_lies_outside_and_rare_values(profile: dict[str, Any]) -> None:
    constant = reference.numbers(profile["picture.width"])
    assert constant is not None
    was, now, _ = constant.bins(np.array([64.0, 64.0, 8.0, 1000.0]))
    assert now.tolist() == [1, 2, 1]
    assert was.tolist() == [0, constant.rows, 0]
    age = reference.numbers(profile["vitals.age"])
    assert age is not None
    was, now, edges = age.bins(np.arange(18.0, 90.0))
    assert was.sum() == pytest.approx(age.rows)
    assert now.sum() == 72
    assert len(edges) == len(was) - 1
    assert set(stat_kinds(profile)) >= {"vitals.sex", "picture.width"}


def test_few_reference_rows_are_tested_exactly() -> None:
    small = watched.profile(rows=20)
    found = check(small, watched.events(60, seed=21, change=only_men))
    by = {f.feature: f for f in found.findings}
    few = small["vitals.sex"]["count"]
    rare = small["vitals.sex"]["count"] - dict(small["vitals.sex"]["top"])["m"]
    men = by["vitals.sex"].rows
    assert by["vitals.sex"].p == pytest.approx(scipy.stats.fisher_exact([[rare, few - rare], [0, men]])[1], rel=1e-6)
    assert by["vitals.sex"].alarm
