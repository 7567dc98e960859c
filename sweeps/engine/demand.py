"""What trials wait for, told to Ray: an autoscaler brings machines for it."""

import time

from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from sweeps.engine.placement import Request

_SECONDS_BETWEEN_LOOKS = 2.0
_REST_S = 10.0
"""After room was found: a machine counts once it has told of its GPUs."""


class Demand:
    """Placement groups that wait for room, and are given up once they have found it, to trials.

    Unlike what `request_resources` asks for, they end with their driver: a sweep that was killed
    keeps no machine.
    """

    def __init__(self) -> None:
        self._groups: list[PlacementGroup] = []
        self._request: Request | None = None
        self._look_at_s = float("-inf")

    def want(self, request: Request, count: int) -> None:
        """Let so many requests wait; with 0, none does."""
        if count == 0 or request != self._request:
            self._drop(keep=0)
            self._request, self._look_at_s = request, float("-inf")
        now_s = time.monotonic()
        if count == 0 or now_s < self._look_at_s:
            return
        if any(_has_room(group) for group in self._groups):
            self._drop(keep=0)  # the others would have it next
            self._look_at_s = now_s + _REST_S
            return
        self._look_at_s = now_s + _SECONDS_BETWEEN_LOOKS
        self._drop(keep=count)
        while len(self._groups) < count:
            self._groups.append(placement_group([request.to_bundle()]))

    def _drop(self, *, keep: int) -> None:
        for group in self._groups[keep:]:
            remove_placement_group(group)
        del self._groups[keep:]


def _has_room(group: PlacementGroup) -> bool:
    return bool(placement_group_table(group)["state"] == "CREATED")
