"""What a sweep sees of a cluster whose machines come and go; Ray is told, not run."""

from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnschedulableError, RayTaskError

from sweeps.engine import machines
from sweeps.engine.gpu_memory import GpuMemory

A, B, C = ("a" * 56, "b" * 56, "c" * 56)  # names as Ray gives them


class FakeRay:
    """Ray's nodes, and what each would answer to who asks for its GPU's memory."""

    def __init__(self):
        self.there, self.answers, self.asked = {}, {}, []

    def nodes(self):
        return [
            {"NodeID": name, "Alive": True, "Resources": {"CPU": 4.0, "GPU": gpus, "memory": 8e9}}
            for name, gpus in self.there.items()
        ] + [{"NodeID": "d" * 56, "Alive": False, "Resources": {}}]

    def remote(self, **_):
        def options(scheduling_strategy):
            name = scheduling_strategy.node_id
            return SimpleNamespace(remote=lambda: self.asked.append(name) or name)

        return lambda function: SimpleNamespace(options=options)

    def wait(self, names, timeout):
        assert timeout == 0  # the driver has others to look after
        return ([name for name in names if name in self.answers], [])

    def get(self, name):
        answer = self.answers[name]
        if isinstance(answer, Exception):
            del self.answers[name]
            raise answer
        return answer


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(machines, "ray", fake)
    monkeypatch.setattr(machines, "_SECONDS_BETWEEN_LOOKS", -1.0)
    return fake


@pytest.fixture
def view(ray):
    shown = []
    view = machines.MachineView(GpuMemory(), show=shown.append)
    view.shown = shown
    return view


def test_machines_come_once_they_have_told_of_their_gpus_and_go(ray, view):
    ray.there = {A: 1.0, B: 0.0}
    ray.answers = {A: 24}
    assert sorted((n.gpus, n.gpu_bytes) for n in view.wait().nodes) == [(0.0, 0), (1.0, 24)]
    ray.there[C] = 2.0
    for _ in range(3):
        assert view.look().gpus == 1.0
    ray.answers[C] = 80
    assert (view.look().gpus, view.look().gpu_bytes) == (3.0, 24)
    del ray.there[A]
    assert (view.look().gpus, view.look().gpu_bytes) == (2.0, 80)
    assert view.shown == ["machines: 3 (1 came)", "machines: 2 (1 gone)"]
    assert ray.asked == [A, C]


def test_one_that_dies_before_it_answers_is_asked_again_when_it_is_back(ray, view):
    ray.there = {A: 1.0, B: 1.0}
    ray.answers = {A: 24, B: ActorUnschedulableError("gone")}
    assert view.look().gpus == 0.0  # asked
    assert view.look().gpus == 1.0
    ray.answers[B] = 24
    assert view.look().gpus == 1.0  # asked again
    assert view.look().gpus == 2.0
    assert sorted(ray.asked) == [A, B, B]


def test_a_gpu_that_cannot_be_read_does_not_count_and_alone_ends_the_sweep(ray, view, caplog):
    ray.there = {A: 1.0}
    ray.answers = {A: RayTaskError("ask", "…", RuntimeError("no driver"))}
    with pytest.raises(ValueError, match="^node a{56}: its GPU cannot be read: no driver$"):
        view.wait()
    ray.there[B] = 1.0
    ray.answers[B] = 24
    assert view.wait().gpus == 1.0
    assert caplog.messages == [f"node {A}: its GPU cannot be read: no driver; it does not count"]


def test_one_look_serves_for_a_while(ray, view, monkeypatch):
    ray.there = {A: 0.0}
    assert len(view.look().nodes) == 1
    monkeypatch.setattr(machines, "_SECONDS_BETWEEN_LOOKS", 60.0)
    ray.there[B] = 0.0
    assert len(view.look().nodes) == 1
