"""The machines of a Ray cluster, as they come and go while a sweep runs."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.engine.gpu_memory import GpuMemory
from sweeps.engine.placement import Machines, Node

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_ANSWERS = 0.05


@contextlib.contextmanager
def connect(gpu_memory: GpuMemory, *, show: Callable[[str], None]) -> Iterator["MachineView"]:
    """Join the cluster that this job runs on, or start Ray within this process."""
    ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        yield MachineView(gpu_memory, show=show)
    finally:
        ray.shutdown()


class MachineView:
    """What trials may be placed on now."""

    def __init__(self, gpu_memory: GpuMemory, *, show: Callable[[str], None]) -> None:
        """Begin. `show` is told when machines have come or gone."""
        self._ask = ray.remote(num_cpus=0, num_gpus=0.01)(gpu_memory.total_bytes)
        self._show = show
        self._asked: dict[str, Any] = {}
        self._gpu_bytes: dict[str, int] = {}
        self._broken: dict[str, str] = {}
        self._seen: dict[str, Node] = {}
        self._looked_at_s = float("-inf")

    def wait(self) -> Machines:
        """Return all machines there are, once those with GPUs have told of their memory.

        Raises ValueError where no GPU can be read.
        """
        while self._ask_for_gpu_bytes(_list_alive()):
            time.sleep(_SECONDS_BETWEEN_ANSWERS)
        if self._broken and not self._gpu_bytes:
            raise ValueError("; ".join(self._broken.values()))
        return self.look()

    def look(self) -> Machines:
        """Return the machines there are, as they were a moment ago at most.

        One that has just come counts once it has told of its GPUs' memory.
        """
        if time.monotonic() - self._looked_at_s > _SECONDS_BETWEEN_LOOKS:
            alive = _list_alive()
            silent = self._ask_for_gpu_bytes(alive)
            counted = alive.keys() - silent - self._broken.keys()
            self._note({name: self._describe(name, alive[name]) for name in counted})
            self._looked_at_s = time.monotonic()
        return Machines(nodes=tuple(self._seen.values()))

    def _ask_for_gpu_bytes(self, alive: Mapping[str, Mapping[str, float]]) -> set[str]:
        """Ask new machines for the memory of a GPU, on a worker there: the driver may have none.
        Return those that have not answered."""
        with_gpu = {name for name in alive if alive[name].get("GPU")}
        for name in with_gpu - self._gpu_bytes.keys() - self._broken.keys():
            if name not in self._asked:
                there = NodeAffinitySchedulingStrategy(name, soft=False)
                self._asked[name] = self._ask.options(scheduling_strategy=there).remote()
            elif ray.wait([self._asked[name]], timeout=0)[0]:
                self._hear(name, self._asked.pop(name))
        return with_gpu - self._gpu_bytes.keys() - self._broken.keys()

    def _hear(self, name: str, answer: Any) -> None:
        try:
            self._gpu_bytes[name] = ray.get(answer)
        except RayTaskError as error:
            self._broken[name] = f"node {name}: its GPU cannot be read: {error.cause}"
            logger.warning("%s; it does not count", self._broken[name])
        except RayError as error:
            logger.info("node %s is asked again for its GPUs' memory: %s", name, error)

    def _describe(self, name: str, resources: Mapping[str, float]) -> Node:
        return Node(
            cpus=int(resources.get("CPU", 0)),
            gpus=resources.get("GPU", 0.0),
            gpu_bytes=self._gpu_bytes.get(name, 0),
            memory_bytes=int(resources.get("memory", 0)),
        )

    def _note(self, there: dict[str, Node]) -> None:
        come, gone = there.keys() - self._seen.keys(), self._seen.keys() - there.keys()
        if self._seen and (come or gone):
            changes = [f"{len(of)} {verb}" for of, verb in ((come, "came"), (gone, "gone")) if of]
            self._show(f"machines: {len(there)} ({', '.join(changes)})")
        self._seen = there


def _list_alive() -> dict[str, Mapping[str, float]]:
    """Return the resources of each machine that is alive, by its name."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
