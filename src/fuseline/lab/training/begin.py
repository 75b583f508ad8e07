"""What encoders learn by themselves before the task is trained."""

from __future__ import annotations

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.model import FusionModel
from fuseline.progress import Voice


def begin(model: FusionModel, seed: int, voice: Voice) -> None:
    """Let every encoder learn what it can without the task. The random numbers of the caller stay as they were."""
    for place, encoder in enumerate(model.encoders):
        assert isinstance(encoder, Encoder)
        encoder.begin(seed * 1_000_003 + place, lambda text: voice.say(f"· {text}"))
