"""The demo's generative model, as numbers: all that is needed to draw a visit and to judge it perfectly.

    diagnosis y ~ PRIOR
    each sign s of picture, sound and vitals ~ p(s | y), independently given y
    each sentence of a note ~ SENTENCES[:, y], independently given y
    each cell present with a chance that does not depend on y (absent completely at random)

so the posterior of a row is PRIOR times the product of the likelihoods of the signs that its present cells show.
Nothing here is medicine: the diagnoses do not exist and the numbers were chosen to make fusion worth its while.
Every tuple below has one entry a diagnosis, in the order of CLASSES.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CLASSES = ("well", "murk", "reed")
PRIOR = (0.40, 0.30, 0.30)
MODALITIES = ("picture", "note", "sound", "vitals")

ABSENT = 1 / 3
"""chance that a picture, note, sound, or single vital sign is absent"""
NO_VITALS = 1 / 6
"""chance that no vital sign was taken at all; the rest of ABSENT falls on single ones"""
SECOND_VISIT = 0.25
"""chance that a patient comes twice: same diagnosis, fresh signs"""

Chance = tuple[float, float, float]

PICTURE: dict[str, Chance] = {"cloud": (0.07, 0.85, 0.12), "lines": (0.08, 0.15, 0.80)}
SOUND: dict[str, Chance] = {"crackles": (0.06, 0.82, 0.15), "wheeze": (0.08, 0.12, 0.83)}

SENTENCES: dict[str, Chance] = {
    "fever": (0.03, 0.24, 0.05),
    "no_fever": (0.19, 0.04, 0.15),
    "whistling": (0.03, 0.05, 0.25),
    "no_whistling": (0.16, 0.14, 0.03),
    "tired": (0.04, 0.21, 0.10),
    "exertion": (0.03, 0.08, 0.20),
    "comfortable": (0.30, 0.02, 0.02),
    "neutral": (0.22, 0.22, 0.20),
}
SENTENCE_COUNT = (0.25, 0.40, 0.35)
"""chance of one, two, three sentences, whatever the diagnosis"""


@dataclass(frozen=True)
class Normal:
    """A vital sign: normal with these means and deviations, rounded to `step` and capped at `top`."""

    mean: Chance
    deviation: Chance
    step: float
    top: float | None = None

    def likelihood(self, value: float, y: int) -> float:
        """Chance of the written (rounded, capped) value: an interval's mass, not a density."""
        low = self._below(value - self.step / 2, y)
        capped = self.top is not None and value >= self.top
        high = 1.0 if capped else self._below(value + self.step / 2, y)
        return max(high - low, 1e-300)

    def _below(self, value: float, y: int) -> float:
        return 0.5 * math.erfc(-(value - self.mean[y]) / (self.deviation[y] * math.sqrt(2)))


NUMBERS: dict[str, Normal] = {
    "temperature": Normal((36.7, 37.9, 36.9), (0.35, 0.60, 0.40), 0.1),
    "oxygen": Normal((97.5, 94.5, 95.5), (1.2, 2.0, 1.8), 1.0, top=100.0),
    "breaths": Normal((15.0, 19.0, 20.0), (2.5, 3.0, 3.0), 1.0),
}
COUGH: dict[str, Chance] = {"none": (0.60, 0.15, 0.20), "dry": (0.28, 0.20, 0.60), "wet": (0.12, 0.65, 0.20)}
ALLERGY: Chance = (0.20, 0.20, 0.55)
"""chance of `allergy` true. `age` and `visited` say nothing about the diagnosis"""

VITALS = (*NUMBERS, "cough", "allergy", "age")
