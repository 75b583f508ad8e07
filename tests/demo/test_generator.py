"""The made clinic: same seed same bytes, a third absent, media that show their signs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fuseline.demo import generate
from fuseline.demo import statement as st
from fuseline.demo.generator import HEADER
from fuseline.demo.media import RATE, SIZE, note, picture, sound
from fuseline.errors import FuselineError


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    generate(folder, rows=300, seed=5)
    return folder


def rows_tested_and_files_agree(clinic: Path) -> None:
    rows = table(clinic)
    assert len(rows) == 300
    assert tuple(rows[0]) == HEADER
    for kind, folder in (("picture", "images"), ("sound", "sounds")):
        named = {r[kind] for r in rows if r[kind]}
        assert named == {f"{folder}/{p.name}" for p in (clinic / folder).iterdir()}
    with Image.open(clinic / next(r["picture"] for r in rows if r["picture"])) as image:
        assert (image.size, image.mode) == ((SIZE, SIZE), "L")
    assert soundfile.info(clinic / next(r["sound"] for r in rows if r["sound"])).samplerate == RATE


def test_a_third_of_the_cells_is_absent(clinic: Path) -> None:
    rows = table(clinic)
    columns = ("picture", "note", "sound", *st.VITALS)
    absent = np.array([[r[c] == "" for c in columns] for r in rows])
    assert abs(absent.mean() - st.ABSENT) < 0.04
    assert np.all(np.abs(absent.mean(axis=0) - st.ABSENT) < 0.1)


def test_some_patients_come_twice_with_one_diagnosis(clinic: Path) -> None:
    seen: dict[str, set[str]] = {}
    rows = table(clinic)
    for row in rows:
        seen.setdefault(row["patient"], set()).add(row["diagnosis"])
    assert 0.75 < len(seen) / len(rows) < 0.85
    assert all(len(diagnoses) == 1 for diagnoses in seen.values())


def test_same_seed_same_bytes_and_a_shorter_table_is_the_head(clinic: Path, tmp_path: Path) -> None:
    generate(tmp_path, rows=40, seed=5)
    lines = (clinic / "table.csv").read_bytes().splitlines()
    assert (tmp_path / "table.csv").read_bytes().splitlines() == lines[:41]
    for path in (p for sub in ("images", "sounds") for p in (tmp_path / sub).iterdir()):
        assert path.read_bytes() == (clinic / path.relative_to(tmp_path)).read_bytes()
    generate(tmp_path, rows=40, seed=6)
    assert (tmp_path / "table.csv").read_bytes().splitlines() != lines[:41]


def test_notes_hold_more_than_ascii(clinic: Path) -> None:
    assert any(not r["note"].isascii() for r in table(clinic))


def test_the_table_tells_nothing_of_the_truth(clinic: Path) -> None:
    said = json.loads((clinic / "truth.json").read_text(encoding="utf-8"))
    assert said["made"].startswith("All data here is made")
    assert not set(HEADER) & {"posterior", "signs", "row"}
    assert "diagnosis" not in HEADER[:-1]


def test_pictures_show_their_signs() -> None:
    rng = np.random.default_rng(0)
    bodies = [(float(a), float(b)) for a, b in rng.uniform(0.85, 1.1, (60, 2))]

    def bright(signs: list[str]) -> list[int]:
        return [int((np.asarray(picture(signs, b, rng))[10:54, 10:54] > 185).sum()) for b in bodies]

    plain, cloud, lines = bright([]), bright(["cloud"]), bright(["lines"])
    assert max(plain) < min(cloud)
    # Streaks are thin: seen in the contrast of neighbours, not in brightness.
    rough = [
        [float(np.abs(np.diff(np.asarray(picture(s, b, rng)).astype(int), axis=0))[12:52].mean()) for b in bodies]
        for s in ([], ["lines"])
    ]
    assert np.median(rough[1]) > np.median(rough[0]) * 1.1
    assert np.median(lines) < np.median(cloud)


def test_sounds_show_their_signs() -> None:
    rng = np.random.default_rng(0)

    def tone(signs: list[str]) -> float:
        spectrum = np.abs(np.fft.rfft(sound(signs, rng)))
        return float(spectrum[300:500].max() / np.median(spectrum))

    def peak(signs: list[str]) -> float:
        wave = sound(signs, rng)
        return float(np.abs(wave).max() / wave.std())

    assert max(tone([]) for _ in range(40)) < min(tone(["wheeze"]) for _ in range(40))
    assert max(peak([]) for _ in range(40)) < min(peak(["crackles"]) for _ in range(40))


def test_notes_have_a_sentence_a_topic() -> None:
    rng = np.random.default_rng(0)
    for topic in st.SENTENCES:
        text = note([topic, "neutral"], rng)
        assert text.count(".") >= 2
        assert text == text.strip()


def test_foreign_files_are_never_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FuselineError) as caught:
        generate(tmp_path, rows=20)
    assert caught.value.code == "folder_not_empty"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(FuselineError) as caught:
        generate(tmp_path / "new", rows=3)
    assert caught.value.code == "bad_argument"
    assert not (tmp_path / "new").exists()
