"""How much disk the trials of a storage root take: what is kept of ended ones, whether there is
room for another.

Records, journals and outcomes are small and always kept, and so are the best net of every sweep
and all that a trial may go on from.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence

from filelock import Timeout

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root
from trainer.checkpoint import BEST, LAST, PREVIOUS

CHECKPOINTS = (PREVIOUS, LAST)
"""Of no use once a trial has ended, unless another sweep wants to carry a stopped one on."""
WEIGHTS = (BEST,)

RESERVE_BYTES = 100_000_000
"""Left to databases, journals and logs."""

_SPARE = 0.1
"""So much of the limit is freed at once: looking at all trials takes a while."""

Standings = Callable[[], Sequence[Sequence[TrialRecord]]]
"""The records of every sweep of a root, each from best to worst."""

logger = logging.getLogger(__name__)


class Disk:
    """Watches over what trials take."""

    def __init__(
        self, root: Root, *, keep_bytes: float | None, trial_bytes: int, standings: Standings
    ) -> None:
        """Keep trials below `keep_bytes`, where given, and room for what one trial takes."""
        self._root = root
        self._keep_bytes = keep_bytes
        self._trial_bytes = trial_bytes
        self._standings = standings
        self._taken: dict[str, int] = {}
        if keep_bytes is not None:
            self._measure_all()
        self._running: set[str] = set()
        self._has_told_full = False
        self._has_told_limit = False

    def begin(self, fingerprint: str) -> None:
        """Count on what a trial will write."""
        self._running.add(fingerprint)

    def end(self, fingerprint: str) -> None:
        """Count what a trial has left, and collect where that is too much."""
        self._running.discard(fingerprint)
        if self._keep_bytes is None:
            return
        self._taken[fingerprint] = self._measure(fingerprint)
        if sum(self._taken.values()) <= self._keep_bytes:
            return
        self._measure_all()  # other sweeps of this root write too
        self._collect(CHECKPOINTS, down_to=self._keep_bytes * (1 - _SPARE))
        self._collect(WEIGHTS, down_to=self._keep_bytes)
        if sum(self._taken.values()) > self._keep_bytes and not self._has_told_limit:
            self._has_told_limit = True
            logger.warning(
                "keep-gb=%g: the best nets and the trials that may go on take %.3g GB",
                self._keep_bytes / 1e9,
                sum(self._taken.values()) / 1e9,
            )

    def has_room(self) -> bool:
        """Return whether another trial's files fit beside what running trials will still write.

        Where they do not, checkpoints of ended trials go first; a full disk is told once.
        """
        missing = self._missing_bytes()
        if missing > 0:
            self._measure_all()
            self._collect(CHECKPOINTS, down_to=sum(self._taken.values()) - missing)
            missing = self._missing_bytes()
        if missing > 0 and not self._has_told_full:
            logger.warning(
                "disk: %s lacks %.3g GB for another trial: new trials wait until there is room",
                self._root.place,
                missing / 1e9,
            )
        self._has_told_full = missing > 0
        return missing <= 0

    def _missing_bytes(self) -> float:
        free = self._root.free_bytes()
        if free > self._trial_bytes * (1 + len(self._running)) + RESERVE_BYTES:
            return 0  # whatever they have written already: measuring takes a while
        to_come = sum(max(0, self._trial_bytes - self._measure(name)) for name in self._running)
        return self._trial_bytes + to_come + RESERVE_BYTES - free

    def _collect(self, names: Iterable[str], *, down_to: float) -> None:
        """Delete such files of ended trials, from the worst on, until they take no more."""
        for fingerprint in self._find_ended(keep_best=names == WEIGHTS):
            if sum(self._taken.values()) <= down_to:
                return
            if self._taken.get(fingerprint):
                self._discard(fingerprint, names)

    def _find_ended(self, *, keep_best: bool) -> list[str]:
        """Return the trials that have ended in every sweep that has them, worst rank first, except
        any sweep's best where that is kept."""
        places: dict[str, int] = {}
        kept: set[str] = set()
        for standing in self._standings():
            kept |= {record.fingerprint for record in standing if not record.is_ended}
            kept |= {record.fingerprint for record in standing[:1] if keep_best}
            for place, record in enumerate(standing):
                name = record.fingerprint
                places[name] = min(place, places.get(name, place))
        ended = places.keys() - kept - self._running
        return sorted(ended, key=lambda name: (-places[name], name))

    def _discard(self, fingerprint: str, names: Iterable[str]) -> None:
        with contextlib.suppress(Timeout), self._root.hold(fingerprint, timeout_s=0):
            self._root.discard(fingerprint, names)
        self._taken[fingerprint] = self._measure(fingerprint)

    def _measure_all(self) -> None:
        self._taken = {name: self._measure(name) for name in self._root.list_trials()}

    def _measure(self, fingerprint: str) -> int:
        return self._root.measure(fingerprint, (*CHECKPOINTS, *WEIGHTS))
