from __future__ import annotations

import datetime
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import watched

from fuseline.errors import FuselineError
from fuseline.monitor import recorder as module
from fuseline.monitor.recorded import live, read_labels, read_log, wilson
from fuseline.monitor.recorder import Recorder
from fuseline.monitor.seen import Redaction, records


def record(folder: Path, profile: dict[str, Any], events: list[Any], **options: Any) -> Recorder:
    recorder = Recorder(folder, **({"share": 1.0, "seconds": 60.0, "seed": "s"} | options))
    recorder.loaded(watched.info(profile=profile))
    for event in events:
        recorder.ended(event)
    recorder.close()
    return recorder


def rows_of(profile: dict[str, Any], events: list[Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    info = watched.info(profile=profile)
    return {("clinic", "v1"): [r for e in events for r in records(e, info)]}


def test_rows_come_back_as_they_were_seen(tmp_path: Path, profile: dict[str, Any]) -> None:
    events = [*watched.events(20, seed=1), watched.event([watched.failed()], "bad")]
    recorder = record(tmp_path / "log", profile, events)
    frame = read_log(tmp_path / "log", version="v1").frame
    assert len(frame) == 101 == recorder.status()["recorded"]
    first = frame.row(0, named=True)
    truth = events[0].rows[0]
    assert first["request"] == "r0"
    assert first["label"] == truth.answer.value
    assert first["confidence"] == pytest.approx(max(truth.answer.probabilities.values()))
    assert first["used"] == list(truth.answer.used)
    assert first["embedding"] == pytest.approx(list(truth.embedding), rel=1e-6)
    for key, value in truth.stats.items():
        assert first[f"stats.{key}"] == value
    assert frame["error_column"].drop_nulls().to_list() == ["picture"]
    assert frame["time"].dtype == pl.Datetime("us", "UTC")
    assert not list((tmp_path / "log").glob("*.new"))


def test_no_cell_is_in_the_files(tmp_path: Path, profile: dict[str, Any]) -> None:
    record(tmp_path, profile, [*watched.events(5, seed=1), watched.event([watched.failed()], "bad")])
    for path in tmp_path.glob("*.parquet"):
        assert "secret" not in pl.read_parquet(path).write_json()


def test_redaction_leaves_out_what_it_names(tmp_path: Path, profile: dict[str, Any]) -> None:
    hide = Redaction(drop=frozenset({"vitals.age"}), texts=True, labels=True, embeddings=True)
    record(tmp_path, profile, watched.events(5, seed=1), redaction=hide)
    frame = read_log(tmp_path).frame
    assert {"stats.vitals.age", "stats.vitals.sex"}.isdisjoint(frame.columns)
    assert "stats.note.tokens" in frame.columns
    assert frame["label"].str.starts_with("#").all()
    assert "embedding" not in frame.columns or frame["embedding"].null_count() == len(frame)


def test_the_sample_is_seeded_by_request_and_keeps_requests_whole(tmp_path: Path, profile: dict[str, Any]) -> None:
    events = watched.events(400, seed=1, size=2)
    for name in ("a", "b"):
        record(tmp_path / name, profile, events, share=0.25)
    a, b = (read_log(tmp_path / name).frame for name in ("a", "b"))
    assert a["request"].to_list() == b["request"].to_list()
    assert 60 < a["request"].n_unique() < 140
    assert (a.group_by("request").len()["len"] == 2).all()
    record(tmp_path / "c", profile, events, share=0.25, seed="another")
    assert set(read_log(tmp_path / "c").frame["request"]) != set(a["request"])


def test_without_a_seed_no_caller_can_choose_to_be_recorded(tmp_path: Path) -> None:
    one, two = (Recorder(tmp_path, share=0.5) for _ in range(2))
    ids = [f"r{i}" for i in range(64)]
    assert [one.sampled(i) for i in ids] != [two.sampled(i) for i in ids]
    assert not one.wants(watched.event([], door="warmup").call)
    one.close()
    two.close()


def test_the_oldest_files_go_when_the_log_is_full(
    tmp_path: Path, profile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 1)
    recorder = Recorder(tmp_path, share=1.0, seconds=60.0, megabytes=0.1)
    recorder.loaded(watched.info(profile=profile))
    for i in range(12):
        recorder._flush(rows_of(profile, watched.events(20, seed=i, prefix=f"{i}-")))
        time.sleep(0.01)
    recorder.close()
    total = sum(p.stat().st_size for p in tmp_path.glob("*.parquet"))
    assert 0 < total <= 0.1 * 2**20
    kept = {r.split("-")[0] for r in read_log(tmp_path).frame["request"]}
    assert "11" in kept
    assert "0" not in kept


def test_small_writes_grow_one_file(tmp_path: Path, profile: dict[str, Any]) -> None:
    recorder = Recorder(tmp_path, share=1.0, seconds=0.05)
    recorder.loaded(watched.info(profile=profile))
    for i in range(4):
        recorder.ended(watched.events(1, seed=i, prefix=str(i))[0])
        until = time.monotonic() + 10
        while recorder.status()["recorded"] < 5 * (i + 1) and time.monotonic() < until:
            time.sleep(0.01)
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert len(read_log(tmp_path).frame) == 20
    recorder.close()


def test_a_full_queue_drops_and_counts(
    tmp_path: Path, profile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE", 4)
    gate = threading.Event()
    monkeypatch.setattr(Recorder, "_flush", lambda self, rows: gate.wait(20))
    recorder = Recorder(tmp_path, share=1.0, seconds=0.01)
    recorder.loaded(watched.info(profile=profile))
    start = time.monotonic()
    for event in watched.events(50, seed=1, size=1):
        recorder.ended(event)
    assert time.monotonic() - start < 5
    assert recorder.status()["dropped"] >= 30
    gate.set()
    recorder.close()


def test_what_waits_to_be_written_holds_no_picture(
    tmp_path: Path, profile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, share=1.0, seconds=60.0)
    recorder.loaded(watched.info(profile=profile))
    kept: list[Any] = []
    monkeypatch.setattr(recorder._queue, "put_nowait", kept.append)
    recorder.ended(watched.events(1, seed=1)[0])
    assert len(kept) == 1
    assert "secret" not in repr(kept)
    recorder.close()


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FuselineError) as error:
        Recorder(tmp_path / "file" / "log")
    assert error.value.code == "bad_folder"


def test_a_disk_that_fails_later_ends_nothing(
    tmp_path: Path, profile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, share=1.0, seconds=60.0)
    recorder.loaded(watched.info(profile=profile))
    with monkeypatch.context() as broken:
        broken.setattr(module.os, "replace", _full)
        recorder._flush(rows_of(profile, watched.events(2, seed=1)))
    assert recorder.status()["failed"] == 10
    assert "No space" in recorder.status()["failure"]
    recorder._flush(rows_of(profile, watched.events(2, seed=2)))
    recorder.close()
    assert recorder.status()["recorded"] == 10 == len(read_log(tmp_path).frame)
    assert not list(tmp_path.glob("*.new"))


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_half_written_leftovers_harm_nobody(tmp_path: Path, profile: dict[str, Any]) -> None:
    record(tmp_path, profile, watched.events(4, seed=1))
    [whole] = tmp_path.glob("*.parquet")
    data = whole.read_bytes()
    (tmp_path / "x.parquet.new").write_bytes(data[:100])
    (tmp_path / "0-half.parquet").write_bytes(data[: len(data) // 2])
    (tmp_path / "0-other.parquet").touch()
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "0-strange.parquet")
    log = read_log(tmp_path)
    assert len(log.frame) == 20
    assert sorted(n.split()[0] for n in log.notes) == ["0-half.parquet", "0-other.parquet", "0-strange.parquet"]


def test_reading_chooses_version_time_and_door(tmp_path: Path, profile: dict[str, Any]) -> None:
    shadow = watched.event(list(watched.events(1, seed=3)[0].rows), "s", door="shadow")
    recorder = Recorder(tmp_path, share=1.0, seconds=60.0)
    recorder.loaded(watched.info("v1", profile=profile))
    recorder.loaded(watched.info("v2", profile=profile))
    recorder.ended(watched.events(1, seed=1)[0])
    recorder.ended(watched.event(list(watched.events(1, seed=2)[0].rows), "two", version="v2"))
    recorder.ended(watched.event(list(watched.events(1, seed=2)[0].rows), "gone", version="v3"))
    recorder.ended(shadow)
    recorder.close()
    assert recorder.status()["dropped"] == 5
    one = read_log(tmp_path, version="v1")
    assert set(one.frame["request"]) == {"r0"}
    assert "other versions" in one.notes[0]
    assert set(read_log(tmp_path, version="v1", doors=True).frame["request"]) == {"r0", "s"}
    with pytest.raises(FuselineError) as error:
        read_log(tmp_path, since=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1))
    assert error.value.code == "empty_log"
    with pytest.raises(FuselineError, match="no log"):
        read_log(tmp_path / "nowhere")


def test_a_change_of_redaction_is_no_drift_of_absence(tmp_path: Path, profile: dict[str, Any]) -> None:
    record(tmp_path, profile, watched.events(2, seed=1), redaction=Redaction(drop=frozenset({"vitals.sex"})))
    record(tmp_path, profile, watched.events(2, seed=2, prefix="q"))
    log = read_log(tmp_path)
    assert "stats.vitals.sex" not in log.frame.columns
    assert "vitals.sex" in log.notes[0]


def labels_of(folder: Path, lines: list[str]) -> pl.DataFrame:
    (folder / "labels.csv").write_text("\n".join(["request,row,label", *lines]), encoding="utf-8")
    return read_labels(folder / "labels.csv")


@pytest.mark.parametrize("redaction", [Redaction(), Redaction(labels=True)], ids=["open", "hashed"])
def test_later_labels_find_their_rows(tmp_path: Path, profile: dict[str, Any], redaction: Redaction) -> None:
    events = watched.events(30, seed=1)
    record(tmp_path / "log", profile, events, redaction=redaction)
    lines, right = [], 0
    for i, event in enumerate(events):
        for j, row in enumerate(event.rows):
            truth = row.answer.value if (i + j) % 4 else "never"
            right += truth == row.answer.value
            lines.append(f"{event.call.id},{j},{truth}")
    found = live(read_log(tmp_path / "log").frame, labels_of(tmp_path, [*lines, "unknown,0,yes", "r0,99,yes"]))
    assert (found.rows, found.unmatched) == (150, 2)
    assert found.accuracy == right / 150
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.accuracy < found.high


def test_numbers_get_an_error_and_labels_may_be_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"request": ["a", "b"], "row": [0, 0], "label": [None, None], "number": [1.0, 5.0], "error": [None, None]},
        schema_overrides={"row": pl.Int32, "label": pl.String, "error": pl.String},
    )
    found = live(frame, labels_of(tmp_path, ["a,0,2", "b,0,5.5"]))
    assert found.error == pytest.approx(0.75)
    classes = frame.with_columns(label=pl.Series(["1", "true"]), number=None)
    assert live(classes, labels_of(tmp_path, ["a,0,1.0", "b,0,true"])).accuracy == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2", "lacks the column request"), ("request,row,label\na,x,1", "whole number"),
     ("request,row,label\na,0,1\na,0,2", "twice")],
)  # fmt: skip
def test_bad_labels_are_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(FuselineError, match=words):
        read_labels(tmp_path / "labels.csv")


def test_the_interval_is_wilsons() -> None:
    import scipy.stats

    for hits, rows in ((0, 10), (7, 10), (980, 1000)):
        expected = scipy.stats.binomtest(hits, rows).proportion_ci(method="wilson")
        assert wilson(hits, rows) == pytest.approx((expected.low, expected.high), abs=1e-6)
