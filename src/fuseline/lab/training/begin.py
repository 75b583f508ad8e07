"""What encoders learn by themselves before the task is trained."""

from __future__ import annotations

from collections.abc import Collection

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.model import FusionModel
from fuseline.progress import Voice


def begin(model: FusionModel, seed: int, voice: Voice, but: Collection[str] = ()) -> None:
    """Let every encoder learn what it can without the task. The random numbers of the caller stay as they were.

    `but`: inputs whose encoders learned before.
    """
    for place, (name, encoder) in enumerate(zip(model.names, model.encoders, strict=True)):
        assert isinstance(encoder, Encoder)
        if name in but:
            continue
        encoder.begin(seed * 1_000_003 + place, lambda text: voice.say(f"· {text}"))
