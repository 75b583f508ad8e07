"""Running totals, and how much each grew over a window: what Prometheus's `increase` is, inside one process."""

from __future__ import annotations

from bisect import bisect_right

from fuseline.monitor.rules.options import DAY, HOUR, MINUTE

Key = tuple[str, ...]
"""e.g. ("failed",) or ("absent", "picture")"""


class Snapshots:
    """Copies of the totals about every `step` seconds, for `keep` seconds: bounded by 2 keep / step copies."""

    def __init__(self, step: float, keep: float, start: float) -> None:
        self.step, self.keep = step, keep
        self._times = [start]
        self._totals: list[dict[Key, float]] = [{}]

    def take(self, now: float, since: float, totals: dict[Key, float]) -> None:
        """`totals` have been what they are since `since`, and are about to change or to be looked at `now`."""
        if now - self._times[-1] < self.step or since <= self._times[-1]:
            return
        self._times.append(since)
        self._totals.append(dict(totals))
        while len(self._times) > 1 and self._times[1] <= now - self.keep:  # one as old as the longest window stays
            del self._times[0], self._totals[0]

    def before(self, when: float) -> dict[Key, float]:
        """The totals as they were at `when`, or at the start where that is later."""
        return self._totals[max(bisect_right(self._times, when) - 1, 0)]


class History:
    """The totals of one model: by 15 seconds for windows up to an hour, by 15 minutes for those up to a week."""

    def __init__(self, now: float) -> None:
        self.totals: dict[Key, float] = {}
        self._changed = now
        self._fine = Snapshots(15, HOUR, now)
        self._coarse = Snapshots(15 * MINUTE, 7 * DAY, now)

    def tick(self, now: float) -> None:
        for snapshots in (self._fine, self._coarse):
            snapshots.take(now, self._changed, self.totals)

    def add(self, now: float, key: Key, amount: float = 1) -> None:
        self.tick(now)
        self.totals[key] = self.totals.get(key, 0) + amount
        self._changed = now

    def increase(self, now: float, key: Key, seconds: float) -> float:
        """How much `key` grew in the last `seconds`, to the precision of a step."""
        self.tick(now)
        snapshots = self._fine if seconds <= HOUR else self._coarse
        return self.totals.get(key, 0) - snapshots.before(now - seconds).get(key, 0)

    def names(self, head: str) -> list[str]:
        """The second words of the keys that begin with `head`: inputs, columns."""
        return sorted({key[1] for key in self.totals if key[0] == head and len(key) > 1})
