"""One turn as the page sends it: looked at before any model is asked, and what was understood of it afterwards.

Dimensions: S samples, N channels.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from examples.interaction import faces
from examples.interaction.words import UNSURE
from fuseline.errors import FuselineError

KEYS = ("text", "audio", "face", "customer")
MOST_SECONDS = 10.0
"""as much as the model hears: a longer sound is refused, not cut in silence"""
LEAST_SECONDS = 0.2
MOST_LETTERS = 400
QUIET = 1e-3
"""a peak below this, of 1, is a microphone that is off"""
SURE = 0.6
"""an intent below this chance is none: the reply asks"""
FELT = 0.5
"""an emotion below this chance is not spoken to: the reply is plain"""


@dataclass(frozen=True)
class Turn:
    row: dict[str, Any]
    """cells of the understanding model, None where absent"""
    customer: str | None


def read_turn(body: Any) -> Turn:
    """Raises FuselineError ``bad_request`` with words for the person at the page."""
    if not isinstance(body, dict):
        raise _bad("the body is no JSON object", f"known keys: {', '.join(KEYS)}")
    for key in body:
        if key not in KEYS:
            raise _bad(f"unknown key {str(key)[:40]!r}", f"known: {', '.join(KEYS)}")
    customer = body.get("customer")
    if customer is not None and not isinstance(customer, str):
        raise _bad("the customer is no text")
    row = {"speech": _speech(body.get("audio")), "transcript": _text(body.get("text")), "face": _face(body.get("face"))}
    if not any(v is not None for v in row.values()):
        raise _bad("there is nothing in this turn", "say, type or show something")
    return Turn(row, customer)


def _text(given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise _bad("the text is no text")
    text = " ".join(given.split())
    if len(text) > MOST_LETTERS:
        raise _bad(f"the text has {len(text)} letters", f"at most {MOST_LETTERS}")
    return text or None


def _face(given: Any) -> str | None:
    """Only drawings: the model has seen no photograph."""
    match given:
        case None:
            return None
        case {"expression": str(name), "seed": int(seed)} if (
            name in faces.EXPRESSIONS and 0 <= seed < 2**31 and not isinstance(seed, bool)
        ):
            return base64.b64encode(faces.draw(name, seed)).decode("ascii")
    raise _bad("the face is no drawing", "send an expression that /state lists, and a seed")


def _speech(given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise _bad("the audio is no base64 text")
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("the audio is no base64 text") from None
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            seconds = file.frames / file.samplerate
            if seconds > MOST_SECONDS:
                raise _bad(f"the sound has {seconds:.1f} seconds", f"at most {MOST_SECONDS:g}: say it in two turns")
            samples_SN = file.read(int(MOST_SECONDS * file.samplerate), dtype="float32", always_2d=True)
            seconds = len(samples_SN) / file.samplerate  # headers lie
    except (soundfile.LibsndfileError, RuntimeError, ValueError, MemoryError):
        raise _bad("the audio is no sound that can be read", "WAV, FLAC, OGG or MP3") from None
    if seconds < LEAST_SECONDS:
        raise _bad("the sound is empty" if not seconds else f"the sound has {seconds:.2f} seconds", "record it again")
    if not np.isfinite(samples_SN).all() or float(np.abs(samples_SN).max()) < QUIET:
        raise _bad("the sound is silent", "is the microphone on?")
    return given


def _bad(words: str, hint: str = "") -> FuselineError:
    return FuselineError("bad_request", words, hint)


def understood(answer: dict[str, Any]) -> dict[str, Any]:
    """What an answer of the understanding model means for the dialogue."""
    value, details = answer["value"], answer["details"]
    chances = {task: details[task]["probabilities"] for task in ("emotion", "intent")}
    emotion, intent = value["emotion"], value["intent"]
    return {
        "emotion": emotion,
        "emotion_chances": chances["emotion"],
        "felt": emotion if chances["emotion"][emotion] >= FELT else "neutral",
        "intent": intent if chances["intent"][intent] >= SURE else UNSURE,
        "intent_chances": chances["intent"],
        "used": answer["used"],
        "absent": answer["absent"],
    }
