"""The dialogue: its made data, what it refuses, its page's program with models that the test knows, its rules."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image
from starlette.testclient import TestClient

from examples.interaction import data, faces, measure, voice, words
from examples.interaction.app import MOST_BYTES, Dialogue, make_app
from examples.interaction.facts import Facts, Filler
from examples.interaction.models import pieces
from examples.interaction.run import HERE, TABLES, examples_of, recipe_of
from examples.interaction.turn import MOST_SECONDS, read_turn, understood
from fuseline import FuselineError, load_recipe

TURNS = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interaction")
    assert data.bring(folder / "data", None, turns=TURNS) == data.MADE
    return folder


def wav(seconds: float = 1.0, loud: float = 0.3, rate: int = 8000) -> str:
    out = io.BytesIO()
    t_S = np.arange(int(seconds * rate)) / rate
    soundfile.write(out, loud * np.sin(2 * np.pi * 200 * t_S), rate, format="WAV")
    return base64.b64encode(out.getvalue()).decode()


def test_made_turns_are_the_same_again_and_no_speaker_is_in_two_parts(folder: Path, tmp_path: Path) -> None:
    data.bring(tmp_path, None, turns=TURNS)
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(files) == 2 * TURNS + 3
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / "data" / file).read_bytes()
    table = pl.read_csv(folder / "data" / data.TURNS)
    assert table.group_by("speaker").agg(pl.col("part").n_unique())["part"].to_list() == [1] * data.SPEAKERS
    assert set(table["part"]) == {"train", "val", "test"}
    assert (table.select(pl.any_horizontal(pl.col(measure.INPUTS).is_not_null()))).to_series().all()
    known = table.filter(pl.col("part") != "test").drop_nulls("transcript")
    assert not any(words.wording_is_new(t, i) for t, i in zip(known["transcript"], known["intent"], strict=True))
    for name in TABLES:
        assert load_recipe(recipe_of(name, folder, epochs=1)).training.epochs == 1


def test_voices_faces_and_words_carry_what_they_should() -> None:
    def power(emotion: str) -> float:
        said = voice.speak(emotion, question=False, own_pitch=150, rng=np.random.default_rng(0))
        assert said.dtype == np.float32
        assert np.abs(said).max() <= 1
        return float((said**2).mean())

    assert power("angry") > 4 * power("sad")
    pixels = {}
    for name in faces.EXPRESSIONS:
        picture = Image.open(io.BytesIO(faces.draw(name, 3)))
        assert (picture.size, picture.mode) == ((faces.SIZE, faces.SIZE), "RGB")
        pixels[name] = np.asarray(picture).tobytes()
    assert len(set(pixels.values())) == len(faces.EXPRESSIONS)
    assert faces.draw("sad", 1) == faces.draw("sad", 1) != faces.draw("sad", 2)
    assert set(voice.PROSODY) == set(faces.EXPRESSIONS)
    assert words.wording_is_new("When will the lamp be here? I am worried.", "order_state")
    assert not words.wording_is_new("When does the lamp come?", "order_state")


def test_recorded_voices_by_actor(tmp_path: Path) -> None:
    source = tmp_path / "given"
    (source / "audio").mkdir(parents=True)
    rows = []
    for actor in range(4):
        (source / "audio" / f"{actor}.wav").write_bytes(base64.b64decode(wav()))
        rows.append({"audio": f"audio/{actor}.wav", "emotion": "sad", "actor": actor})
    pl.DataFrame(rows).write_csv(source / "table.csv")
    assert data.bring(tmp_path / "data", source) == data.REAL
    table = pl.read_csv(tmp_path / "data" / data.TURNS)
    assert set(table["part"]) == {"train", "val", "test"}
    assert set(table["emotion"]) == {"sad"}
    for broken, words_of_it in (
        ([{**rows[0], "audio": "../../etc/passwd"}], "holds no"),
        ([{**rows[0], "emotion": "smug"}], "smug"),
        (rows[:2], "2 speakers"),
        ([{"emotion": "sad", "actor": 1}], "no column audio"),
    ):
        pl.DataFrame(broken).write_csv(source / "table.csv")
        with pytest.raises(FuselineError, match=words_of_it):
            data.bring(tmp_path / "data", source)
    with pytest.raises(FuselineError, match=r"table\.csv"):
        data.bring(tmp_path / "data", tmp_path / "nowhere")


def test_every_situation_has_replies_whose_slots_the_records_fill(folder: Path) -> None:
    known = Facts.read(folder / "data" / data.TRIPLES)
    for customer in (None, *(c["id"] for c in known.customers())):
        slots, _ = known.about(customer)
        for intent in (*words.INTENTS, words.UNSURE):
            for emotion in words.EMOTIONS:
                for reply in words.replies(intent, emotion, slots["state"]):
                    filler = Filler(slots)
                    text = filler.add(reply) + filler.end()
                    assert not filler.unknown
                    assert not set(text) & set("{}…")
    with pytest.raises(FuselineError, match="nobody"):
        known.about("nobody")
    with pytest.raises(FuselineError, match="stolen"):
        Facts([("c", "is called", "C"), ("c", "placed", "o"), ("o", "is", "stolen")]).about("c")


def test_a_slot_across_pieces_is_filled_and_an_unknown_one_is_told() -> None:
    filler = Filler({"item": "lamp", "day": "Monday"})
    shown = [filler.add(p) for p in ("The {", "it", "em} comes on {day", "} or {", "planet}.", " {")]
    assert "".join(shown) == "The lamp comes on Monday or …. "
    assert filler.unknown == ["planet"]
    assert filler.end() == "…"
    stray = Filler({})
    assert stray.add("{ a brace that never ends") == "… a brace that never ends"


def test_events_of_a_stream() -> None:
    good = b'data: {"text": "a"}\n\ndata: {"text": "b\\n"}\n\nevent: end\ndata: {"answer": {}}\n\n'
    assert list(pieces(good.splitlines(keepends=True))) == ["a", "b\n"]
    with pytest.raises(FuselineError, match="broke off"):
        list(pieces([b'data: {"text": "a"}\n', b"\n"]))
    for told, said in ((b'{"code": "deadline", "error": "too late"}', "too late"), (b"oh", "without words")):
        with pytest.raises(FuselineError, match=said):
            list(pieces([b"event: error\n", b"data: " + told + b"\n", b"\n"]))


def test_what_the_dialogue_makes_of_an_answer() -> None:
    def answer(emotion: float, intent: float) -> dict[str, Any]:
        return fake_answer({"speech": None, "transcript": "x", "face": None}, emotion, intent)

    sure = understood(answer(0.9, 0.9))
    assert (sure["felt"], sure["intent"]) == ("angry", "order_state")
    unsure = understood(answer(0.4, 0.5))
    assert (unsure["emotion"], unsure["felt"], unsure["intent"]) == ("angry", "neutral", words.UNSURE)


def fake_answer(row: dict[str, Any], emotion: float = 0.9, intent: float = 0.9) -> dict[str, Any]:
    chances = {
        "emotion": {"angry": emotion, "sad": 1 - emotion},
        "intent": {"order_state": intent, "thanks": 1 - intent},
    }
    return {
        "value": {"emotion": "angry", "intent": "order_state"},
        "details": {name: {"probabilities": p} for name, p in chances.items()},
        "used": [n for n, v in row.items() if v is not None],
        "absent": [n for n, v in row.items() if v is None],
    }


class Fake:
    """Understands every turn as an angry question; writes what it is told; fails where it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.says = ["You have every right to be cross. Your {it", "em} is packed; it comes on {day}."]
        self.deaf = self.breaks = False

    def understand(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.deaf:
            raise FuselineError("worker_died", "the process that computed it ended", "send it again")
        self.rows.append(row)
        return fake_answer(row)

    def write(self, row: dict[str, Any]) -> Iterator[str]:
        self.asked.append(row)
        yield from self.says
        if self.breaks:
            raise FuselineError("worker_died", "the reply broke off", "send the turn again")


@pytest.fixture
def talk(folder: Path) -> Iterator[tuple[Fake, TestClient]]:
    models = Fake()
    facts = Facts.read(folder / "data" / data.TRIPLES)
    dialogue = Dialogue(models, facts, {"data": data.MADE, "measured": {}}, examples_of(folder))
    with TestClient(make_app(dialogue)) as client:
        yield models, client


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    out = []
    for block in text.strip().split("\n\n"):
        *names, line = block.split("\n")
        out.append((names[0].removeprefix("event: ") if names else "", json.loads(line.removeprefix("data: "))))
    return out


def test_a_turn_is_understood_looked_up_and_answered_in_pieces(talk: tuple[Fake, TestClient]) -> None:
    models, client = talk
    turn = {
        "text": " Where is\nit? ",
        "audio": wav(),
        "face": {"expression": "sad", "seed": 1},
        "customer": "customer-1",
    }
    answer = client.post("/turn", json=turn)
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, *told, last = events(answer.text)
    assert first[0] == "understood"
    assert first[1]["used"] == ["speech", "transcript", "face"]
    assert ["customer-1", "is called", "Ada"] in first[1]["facts"]
    assert models.rows[0]["transcript"] == "Where is it?"
    assert base64.b64decode(models.rows[0]["face"]) == faces.draw("sad", 1)
    assert models.asked == [{"intent": "order_state", "emotion": "angry", "state": "packed"}]
    day = next(t for h, r, t in first[1]["facts"] if r == "arrives on")
    assert [t["text"] for _, t in told] == [
        "You have every right to be cross. Your ",
        f"lamp is packed; it comes on {day}.",
    ]
    assert last[0] == "end"
    assert last[1]["reply"] == f"You have every right to be cross. Your lamp is packed; it comes on {day}."
    assert last[1]["fits"] is True
    assert last[1]["unknown"] == []


@pytest.mark.parametrize(
    ("turn", "used"),
    [
        ({"text": "hello"}, "transcript"),
        ({"audio": wav()}, "speech"),
        ({"face": {"expression": "sad", "seed": 0}}, "face"),
    ],
)
def test_one_input_is_enough(talk: tuple[Fake, TestClient], turn: dict[str, Any], used: str) -> None:
    models, client = talk
    said = events(client.post("/turn", json=turn).text)
    assert said[0][1]["used"] == [used]
    assert models.asked[0]["state"] == "none"
    assert said[-1][1]["unknown"] == ["item", "day"]  # the fake writes slots that a nobody's records cannot fill
    assert said[-1][1]["fits"] is False


def test_hostile_turns_get_words_and_the_dialogue_goes_on(talk: tuple[Fake, TestClient]) -> None:
    models, client = talk
    for turn, said in (
        ([1], "no JSON object"),
        ({}, "nothing in this turn"),
        ({"text": " \n", "audio": None}, "nothing in this turn"),
        ({"text": 5}, "no text"),
        ({"text": "a" * 401}, "401 letters"),
        ({"words": "hi"}, "unknown key"),
        ({"text": "hi", "customer": 3}, "no text"),
        ({"text": "hi", "customer": "nobody"}, "no customer"),
        ({"face": "sad"}, "no drawing"),
        ({"face": {"expression": "smug", "seed": 1}}, "no drawing"),
        ({"face": {"expression": "sad", "seed": True}}, "no drawing"),
        ({"face": {"expression": "sad", "seed": -1}}, "no drawing"),
        ({"audio": 7}, "base64"),
        ({"audio": "§"}, "base64"),
        ({"audio": base64.b64encode(b"no sound at all").decode()}, "no sound that can be read"),
        ({"audio": wav(MOST_SECONDS + 0.5)}, "10.5 seconds"),
        ({"audio": wav(0)}, "empty"),
        ({"audio": wav(0.05)}, "0.05 seconds"),
        ({"audio": wav(loud=0)}, "silent"),
    ):
        answer = client.post("/turn", json=turn)
        assert answer.status_code == 400, turn
        assert said in answer.json()["detail"]
    assert client.post("/turn", content=b"{").status_code == 400
    assert client.post("/turn", content=b"[" * 100_000).status_code == 400
    assert client.post("/turn", content=b"x" * (MOST_BYTES + 1)).status_code == 413
    assert client.get("/face?expression=smug").status_code == 404
    assert client.get("/face?expression=sad&seed=-1").status_code == 404
    assert client.get("/example/100000").status_code == 404
    assert models.rows == []
    assert client.post("/turn", json={"text": "hello"}).status_code == 200
    text = client.get("/metrics").text
    assert 'interaction_turns_total{outcome="refused"} 22.0' in text
    assert 'interaction_turns_total{outcome="withdrawn"} 1.0' in text


def test_a_model_that_fails_is_told_and_half_a_reply_is_none(talk: tuple[Fake, TestClient]) -> None:
    models, client = talk
    models.deaf = True
    answer = client.post("/turn", json={"text": "hello"})
    assert answer.status_code == 503
    assert "ended" in answer.json()["detail"]
    models.deaf, models.breaks = False, True
    said = events(client.post("/turn", json={"text": "hello"}).text)
    assert said[-1] == ("error", {"error": "the reply broke off\n  hint: send the turn again"})
    models.breaks, models.says = False, []
    assert events(client.post("/turn", json={"text": "hello"}).text)[-1][0] == "error"
    assert 'interaction_turns_total{outcome="failed"} 3.0' in client.get("/metrics").text


def test_the_page_its_faces_and_its_test_turns(talk: tuple[Fake, TestClient]) -> None:
    _, client = talk
    for name in ("/", "/interaction.js", "/sound.js", "/recording.js", "/recorder-worklet.js", "/favicon.svg"):
        answer = client.get(name)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert client.get("/../app.py").status_code == 404
    state = client.get("/state").json()
    assert state["data"] == data.MADE
    assert len(state["customers"]) == 12
    assert client.get("/face?expression=happy&seed=4").headers["content-type"] == "image/png"
    assert state["examples"] > 0
    example = client.get("/example/0").json()
    truth = example.pop("truth")
    assert truth["intent"] in words.INTENTS
    assert read_turn(example).row["transcript"] == " ".join(example["text"].split())


def test_measures_by_hand(folder: Path) -> None:
    class Told:
        """Says order_state of whatever has words, surely; of the rest nothing for sure. Writes one reply to all."""

        def predict(self, rows: list[dict[str, Any]]) -> list[Any]:
            return [type("A", (), {"to_dict": lambda _, r=r: self.answer(r)})() for r in rows]

        def answer(self, row: dict[str, Any]) -> dict[str, Any]:
            if "state" in row:
                return {"value": "You are welcome."}
            return fake_answer(row, intent=0.9 if row.get("transcript") else 0.3)

    table, rows = measure.turns_of(folder / "data")
    everything, typed, heard, _ = measure.asked(Told(), table, rows)  # type: ignore[arg-type]
    assert heard["acted_on"] == 0
    assert heard["right"] is None
    assert typed["acted_on"] == 1
    spoken = table.drop_nulls("transcript")
    assert typed["turns"] == len(spoken) < everything["turns"] == len(table)
    assert typed["right"] == pytest.approx((spoken["intent"] == "order_state").mean())
    kinds = measure.wordings(Told(), table)  # type: ignore[arg-type]
    assert kinds["known"]["turns"] + kinds["new"]["turns"] == len(spoken)
    replies = measure.replies(Told(), folder / "data")  # type: ignore[arg-type]
    thanked = pl.read_csv(folder / "data" / data.REPLIES).filter(
        (pl.col("part") == "test") & (pl.col("intent") == "thanks") & pl.col("emotion").is_in(["neutral", "calm"])
    )
    assert replies["fit"] == pytest.approx(thanked.select("emotion", "state").n_unique() / replies["situations"])
    assert len(replies["wrong"]) == 5


def test_the_dialogues_alerts_fire_and_stay_silent(tmp_path: Path, checked: Any) -> None:
    for name, place in (("interaction.yml", "rules"), ("interaction_test.yml", "tests")):
        (tmp_path / place).mkdir()
        shutil.copyfile(HERE / "rules" / name, tmp_path / place / name)
    assert "SUCCESS" in checked(tmp_path, "promtool", "test", "rules", "tests/interaction_test.yml")
