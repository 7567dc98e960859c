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
_REST_S = 30.0
"""After something was found: a machine counts once it has told of its GPUs."""


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
            self._drop(self._groups)
            self._request, self._look_at_s = request, float("-inf")
        now_s = time.monotonic()
        if count == 0 or now_s < self._look_at_s:
            return
        found = [group for group in self._groups if _has_room(group)]
        self._look_at_s = now_s + (_REST_S if found else _SECONDS_BETWEEN_LOOKS)
        self._drop([*found, *self._groups[count + len(found) :]])
        while not found and len(self._groups) < count:
            self._groups.append(placement_group([request.to_bundle()]))

    def _drop(self, groups: list[PlacementGroup]) -> None:
        for group in groups:
            remove_placement_group(group)
        self._groups = [group for group in self._groups if group not in groups]


def _has_room(group: PlacementGroup) -> bool:
    return bool(placement_group_table(group)["state"] == "CREATED")
