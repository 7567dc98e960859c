"""Which trial gets what of machines and disk, by the driver's own books.

Ray would take any number of requests and serve the small ones first: a trial for which there is no
room yet is held back here, so that large ones get their turn and the study is asked no earlier
than it must be. What is held back is told to Ray all the same, whose autoscaler brings machines.
"""

import sys
from collections import deque
from collections.abc import Callable

from sweeps.engine.capacity import Capacity
from sweeps.engine.disk import Disk
from sweeps.engine.placement import Machines, Request
from sweeps.engine.study import Suggestion

_MOST_WANTED = 16
"""Of machines at once: each costs the driver some calls to Ray whenever a trial begins."""


class Placer:
    """Places trials, takes their places back, and places again who outgrew or lost theirs."""

    def __init__(
        self,
        capacity: Capacity,
        disk: Disk,
        *,
        look: Callable[[], Machines],
        want: Callable[[Request, int], None] = lambda request, count: None,
    ) -> None:
        """Begin with all machines free. `look()` says which there are by now, and
        `want(request, count)` is told how many trials wait for others."""
        self._capacity = capacity
        self._disk = disk
        self._look = look
        self._want = want
        self._placed: dict[str, tuple[Suggestion, Request]] = {}
        self._waiting: deque[Suggestion] = deque()

    @property
    def waiting(self) -> Suggestion | None:
        """Return the trial that has waited longest to be placed again, None where none does."""
        return self._waiting[0] if self._waiting else None

    def is_placed(self, fingerprint: str) -> bool:
        """Return whether a trial has its place."""
        return fingerprint in self._placed

    def place(self, suggestion: Suggestion, *, behind: int = 0) -> Request | None:
        """Return what a trial may ask Ray for, None while there is no room for it, nor for so many
        that wait behind it."""
        self._capacity.placement = self._capacity.placement.on(self._look())
        request = self._capacity.request(suggestion.config)
        is_back = suggestion is self.waiting  # what it writes was counted when it first came
        has_machine = self._has_room(request)
        self._want(request, 0 if has_machine else self._count_wanted(1 + behind))
        if not has_machine or not (is_back or self._disk.has_room()):
            return None
        if is_back:
            self._waiting.popleft()
        self._disk.begin(suggestion.fingerprint)
        self._placed[suggestion.fingerprint] = (suggestion, request)
        return request

    def share_bytes(self, request: Request) -> int | None:
        """Return a share of a GPU in bytes, 0 where there is no larger one, None for a CPU."""
        return self._capacity.share_bytes(request)

    def note_peak(self, fingerprint: str, peak_bytes: int) -> None:
        """Believe what a running trial measured."""
        suggestion, _ = self._placed[fingerprint]
        self._capacity.needs.note_peak(suggestion.config, peak_bytes)

    def give_back(self, fingerprint: str) -> None:
        """Take back the place of a trial that has ended, and what it need not keep on disk."""
        self._placed.pop(fingerprint, None)
        self._disk.end(fingerprint)

    def outgrow(self, fingerprint: str, needed_bytes: int) -> Request:
        """Take back the place of a trial whose tensors need more, and let it wait for a larger one,
        before all others. Return what it will ask for."""
        suggestion = self.lose(fingerprint)
        self._capacity.needs.note_peak(suggestion.config, needed_bytes)
        return self._capacity.request(suggestion.config)

    def lose(self, fingerprint: str) -> Suggestion:
        """Take back the place of a trial whose worker is gone, and let it wait for another, before
        all others. Return it."""
        suggestion, _ = self._placed.pop(fingerprint)
        self._waiting.append(suggestion)
        return suggestion

    def _count_wanted(self, waiting: int) -> int:
        """Return for how many trials machines are wanted: for no more at once than would double
        what is there, nor than may run."""
        placement = self._capacity.placement
        allowed = (placement.concurrency or sys.maxsize) - len(self._placed)
        return max(0, min(waiting, allowed, len(placement.machines.nodes), _MOST_WANTED))

    def _has_room(self, request: Request) -> bool:
        """Return whether all placed trials together leave so much, wherever it lies."""
        if not self._placed:
            return True
        placement = self._capacity.placement
        machines = placement.machines
        others = [placed for _, placed in self._placed.values()]
        gpus = request.gpus + sum(other.gpus for other in others)
        memory = request.memory_bytes + sum(other.memory_bytes for other in others)
        is_free = gpus <= machines.gpus and memory <= machines.all_memory_bytes
        return len(others) < placement.most and is_free
