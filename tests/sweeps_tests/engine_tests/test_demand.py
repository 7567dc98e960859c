"""What an autoscaler is told of trials that wait; test_autoscaling.py has a real one."""

import itertools
from types import SimpleNamespace

import pytest

from sweeps.engine import demand
from sweeps.engine.demand import Demand
from sweeps.engine.placement import Request

WHOLE = Request(cpus=1, gpus=1.0, memory_bytes=2**30)
HALF = Request(cpus=1, gpus=0.5, memory_bytes=2**30)


class FakeRay:
    """Placement groups by number: what each asks for, and which have found room."""

    def __init__(self):
        self.groups, self.granted, self.now_s = {}, set(), 0.0
        self._numbers = itertools.count()

    def place(self, bundles):
        number = next(self._numbers)
        (self.groups[number],) = bundles
        return number

    def state(self, number):
        return {"state": "CREATED" if number in self.granted else "PENDING"}


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(demand, "placement_group", fake.place)
    monkeypatch.setattr(demand, "placement_group_table", fake.state)
    monkeypatch.setattr(demand, "remove_placement_group", fake.groups.pop)
    monkeypatch.setattr(demand, "time", SimpleNamespace(monotonic=lambda: fake.now_s))
    return fake


def want(ray, told, request, count, *, after_s=3.0):
    ray.now_s += after_s
    told.want(request, count)
    return [bundle["GPU"] for bundle in ray.groups.values()]


def test_as_many_groups_wait_as_trials_and_none_once_none_does(ray):
    told = Demand()
    counts = [len(want(ray, told, WHOLE, count)) for count in (1, 3, 2, 0, 1)]
    assert counts == [1, 3, 2, 0, 1]


def test_trials_of_another_share_wait_for_that(ray):
    told = Demand()
    want(ray, told, WHOLE, 2)
    assert want(ray, told, HALF, 1, after_s=0.0) == [0.5]


def test_what_has_found_room_leaves_it_to_trials_for_a_while(ray):
    told = Demand()
    want(ray, told, WHOLE, 3)
    ray.granted.add(1)
    assert want(ray, told, WHOLE, 3, after_s=1.0) == [1.0] * 3  # looked at a moment ago
    assert want(ray, told, WHOLE, 3, after_s=1.5) == []
    assert want(ray, told, WHOLE, 3, after_s=5.0) == []
    assert want(ray, told, WHOLE, 3, after_s=6.0) == [1.0] * 3
