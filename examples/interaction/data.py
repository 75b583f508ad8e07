"""The tables: turns with their emotion and intent, replies, and the triples of the records.

turns.csv     speech (file), transcript, face (file), emotion, intent; speaker, part, shown, face_seed
replies.csv   intent, emotion, state -> reply, with slots; situation
triples.csv   head, relation, tail

Speech is of `speech-emotion` where a folder has it, else made (`voice.py`). Words are templates (`words.py`) and faces
are drawn (`faces.py`) in either case, and laid beside a speech of the same emotion: what the actors really say is
another sentence, which the model does not see.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile

from examples.interaction import faces, facts, voice, words
from fuseline.errors import FuselineError

TURNS, REPLIES, TRIPLES = "turns.csv", "replies.csv", "triples.csv"
SPEAKERS = 24
ABSENT = 0.08
"""share of each input's cells that are absent"""
MASKED = 0.25
"""share of faces that show another expression than what is felt"""
MADE = "made voices, template words, drawn faces"
REAL = "recorded voices of actors, template words, drawn faces"


def bring(folder: Path, data: Path | None, *, turns: int = 1200, seed: int = 0) -> str:
    """Write the three tables into `folder`. Returns what they are, in words.

    Raises FuselineError ``no_such_file``, ``bad_table`` where `data` is no speech-emotion table.
    """
    speeches = _recorded(folder, data) if data is not None else None
    _write_turns(folder, speeches, turns, seed)
    _write_replies(folder, seed)
    facts.make(folder / TRIPLES, seed)
    return REAL if speeches is not None else MADE


def _recorded(folder: Path, data: Path) -> list[dict[str, Any]]:
    if not (data / "table.csv").is_file():
        raise FuselineError("no_such_file", f"{data} holds no table.csv", "without --data, voices are made")
    table = pl.read_csv(data / "table.csv")
    lacking = sorted({"audio", "emotion", "actor"} - set(table.columns))
    if lacking:
        raise FuselineError("bad_table", f"{data / 'table.csv'} has no column {lacking[0]}", "")
    strange = sorted(set(table["emotion"].drop_nulls()) - set(words.EMOTIONS))
    if strange:
        known = ", ".join(words.EMOTIONS)
        raise FuselineError("bad_table", f"no face was drawn for the emotion {strange[0]!r}", f"known: {known}")
    rows = []
    (folder / "speech").mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(table.drop_nulls(["audio", "emotion", "actor"]).iter_rows(named=True)):
        source = (data / row["audio"]).resolve()
        if not source.is_relative_to(data.resolve()) or not source.is_file():
            raise FuselineError("no_such_file", f"{data} holds no {row['audio']}", "", row=number, column="audio")
        name = f"speech/{number:05d}{source.suffix}"
        shutil.copyfile(source, folder / name)
        rows.append({"speech": name, "emotion": row["emotion"], "speaker": str(row["actor"])})
    return rows


def parts(speakers: list[str], seed: int) -> dict[str, str]:
    """Speaker to part: a quarter test, a sixth of the rest (at least one) validate. No speaker is in two parts.

    Raises FuselineError ``too_few_rows`` for less than four.
    """
    names = sorted(set(speakers))
    if len(names) < 4:
        raise FuselineError("too_few_rows", f"{len(names)} speakers cannot be split into three parts", "")
    order = np.random.default_rng([seed, 5]).permutation(len(names))
    test = max(1, len(names) // 4)
    val = max(1, (len(names) - test) // 6)
    kinds = ["test"] * test + ["val"] * val + ["train"] * (len(names) - test - val)
    return {names[int(i)]: kind for i, kind in zip(order, kinds, strict=True)}


def _write_turns(folder: Path, speeches: list[dict[str, Any]] | None, turns: int, seed: int) -> None:
    for sub in ("speech", "faces"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    names = [s["speaker"] for s in speeches] if speeches else [f"voice-{i:02d}" for i in range(SPEAKERS)]
    part = parts(names, seed)
    pitch = {n: float(np.random.default_rng([seed, 6, i]).uniform(110, 220)) for i, n in enumerate(sorted(set(names)))}
    rows = []
    for number in range(len(speeches) if speeches else turns):
        rng = np.random.default_rng([seed, 7, number])
        intent = words.INTENTS[int(rng.integers(len(words.INTENTS)))]
        if speeches:
            row = dict(speeches[number])
        else:
            emotion, speaker = words.EMOTIONS[int(rng.integers(len(words.EMOTIONS)))], names[number % SPEAKERS]
            row = {"speech": f"speech/{number:05d}.flac", "emotion": emotion, "speaker": speaker}
            question = intent in words.QUESTIONS
            wave_S = voice.speak(emotion, question=question, own_pitch=pitch[speaker], rng=rng)
            soundfile.write(folder / row["speech"], wave_S, voice.RATE)
        row |= {"intent": intent, "part": part[row["speaker"]], "face_seed": int(rng.integers(2**31))}
        masked = rng.random() < MASKED
        row["shown"] = words.EMOTIONS[int(rng.integers(len(words.EMOTIONS)))] if masked else row["emotion"]
        row["transcript"] = words.said(intent, row["emotion"], new=row["part"] == "test", rng=rng)
        row["face"] = f"faces/{number:05d}.png"
        (folder / row["face"]).write_bytes(faces.draw(row["shown"], row["face_seed"]))
        kept = rng.random(3) >= ABSENT
        if not kept.any():
            kept[int(rng.integers(3))] = True
        row |= {n: row[n] if keep else None for n, keep in zip(("speech", "transcript", "face"), kept, strict=True)}
        rows.append(row)
    order = ("speech", "transcript", "face", "emotion", "intent", "speaker", "part", "shown", "face_seed")
    pl.DataFrame(rows, infer_schema_length=None).select(order).write_csv(folder / TURNS)


def _write_replies(folder: Path, seed: int) -> None:
    """Every reply to every situation but one in seven, whose replies validate or test: put together anew."""
    rng = np.random.default_rng([seed, 8])
    rows = []
    for intent in (*words.INTENTS, words.UNSURE):
        for emotion in words.EMOTIONS:
            for state in words.STATES:
                draw = rng.random()
                part = "test" if draw < 0.14 else "val" if draw < 0.24 else "train"
                row = {"intent": intent, "emotion": emotion, "state": state, "part": part}
                rows += [{**row, "reply": reply} for reply in words.replies(intent, emotion, state)]
    pl.DataFrame(rows).write_csv(folder / REPLIES)
