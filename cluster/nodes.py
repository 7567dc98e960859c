"""The machines of a cluster, as its head lists them."""

from dataclasses import dataclass

from cluster.dashboard import Dashboard


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine that is alive."""

    address: str
    is_head: bool
    gpus: float


def list_nodes(dashboard: Dashboard) -> list[Node]:
    """Return the machines that are alive. Raises ClusterFailed."""
    answer = dashboard.ask("/api/v0/nodes?detail=1")
    return [
        Node(
            address=each["node_ip"],
            is_head=each["is_head_node"],
            gpus=float((each["resources_total"] or {}).get("GPU", 0)),
        )
        for each in answer["data"]["result"]["result"]
        if each["state"] == "ALIVE"
    ]


def read_version(dashboard: Dashboard) -> str:
    """Return the version of Ray there. Raises ClusterFailed."""
    return str(dashboard.ask("/api/version")["ray_version"])
