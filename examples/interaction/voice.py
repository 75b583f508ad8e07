"""Made voices: tones with harmonics whose melody, pace, loudness and brightness carry an emotion. They say no words.

Dimensions: S samples of a waveform.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RATE = 16_000


class Prosody(NamedTuple):
    """How an emotion sounds, roughly as Scherer (2003), "Vocal communication of emotion", table 2, orders them."""

    pitch: float
    """of the speaker's own"""
    range: float
    """how far the melody goes, in shares of the pitch"""
    pace: float
    """syllables a second"""
    loud: float
    dark: float
    """how fast the harmonics fall: k to the power of -dark"""
    tremble: float
    rise: float
    """of the pitch over the whole"""


PROSODY: dict[str, Prosody] = {
    "neutral": Prosody(1.00, 0.08, 4.5, 0.40, 1.5, 0.0, -0.05),
    "calm": Prosody(0.92, 0.05, 3.4, 0.28, 1.9, 0.0, -0.05),
    "happy": Prosody(1.30, 0.30, 5.4, 0.55, 1.1, 0.0, 0.05),
    "sad": Prosody(0.90, 0.05, 2.8, 0.22, 2.2, 0.02, -0.15),
    "angry": Prosody(1.20, 0.22, 5.4, 0.90, 0.7, 0.0, -0.10),
    "fearful": Prosody(1.50, 0.14, 6.2, 0.40, 1.4, 0.06, 0.05),
    "disgust": Prosody(0.86, 0.16, 3.6, 0.50, 1.2, 0.0, -0.20),
    "surprised": Prosody(1.40, 0.35, 4.6, 0.60, 1.2, 0.0, 0.35),
}
STRAY = 0.13
QUESTION = 0.3
"""the pitch of a question's last third rises by this share"""


def speak(emotion: str, *, question: bool, own_pitch: float, rng: np.random.Generator) -> np.ndarray:
    """(S,) float32 in [-1, 1] at RATE, about 1.2 s. `own_pitch`: hertz, the speaker's."""
    plain = PROSODY[emotion]
    how = Prosody(*(np.array(plain) * np.exp(rng.normal(0, STRAY, len(plain)))))
    seconds = rng.uniform(1.0, 1.4)
    t_S = np.arange(int(RATE * seconds)) / RATE
    share_S = t_S / seconds
    melody_S = 1 + how.range * np.sin(2 * np.pi * (rng.uniform(0.8, 1.4) * share_S * 2 + rng.random()))
    melody_S *= 1 + how.rise * (share_S - 0.5)
    melody_S *= 1 + how.tremble * np.sin(2 * np.pi * rng.uniform(7, 10) * t_S)
    if question:
        melody_S *= 1 + QUESTION * np.clip((share_S - 0.67) / 0.33, 0, 1)
    phase_S = 2 * np.pi * np.cumsum(own_pitch * how.pitch * melody_S) / RATE
    wave_S = np.zeros_like(t_S)
    for k in range(1, 16):
        wave_S += k**-how.dark * np.sin(k * phase_S + rng.uniform(0, 2 * np.pi))
    beat_S = 0.5 - 0.5 * np.cos(2 * np.pi * (how.pace * t_S + rng.random()))  # syllables
    edge_S = np.clip(np.minimum(share_S, 1 - share_S) / 0.06, 0, 1)
    wave_S *= beat_S**0.7 * edge_S
    wave_S *= 0.8 * np.clip(how.loud, 0.05, 1) / max(1e-9, float(np.abs(wave_S).max()))
    return np.asarray(np.clip(wave_S + rng.normal(0, 0.01, len(t_S)), -1, 1), dtype=np.float32)
