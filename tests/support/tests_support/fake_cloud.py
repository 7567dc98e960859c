"""A Ray head whose autoscaler starts worker nodes on this machine: Ray's own fake of a cloud."""

import contextlib
import json
import os
import secrets
import sys
from pathlib import Path

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider as Provider
from tests_support.waiting import wait_until

from cluster.processes import end_tree, start_tree
from cluster.ray_cli import own_environment, ray_command

NOTHING = ("initialization_commands", "setup_commands", "head_setup_commands")
NOTHING += ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
NOTHING += ("cluster_synced_files", "rsync_exclude", "rsync_filter")


class FakeCloud(Provider):
    """Nodes whose memory Ray finds out by itself, as a fake one cannot be told of it."""

    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        resources = {name: amount for name, amount in resources.items() if name != "memory"}
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)


@contextlib.contextmanager
def autoscaling_head(folder, *, most, ports, idle_minutes):
    """Run a head without CPUs, which has so many workers of a CPU and a GPU at most; yield the
    variables that lead to it."""
    gcs_port, client_port = ports
    worker = {"CPU": 1, "GPU": 1, "memory": 4 * 10**9, "object_store_memory": 80 * 10**6}
    config = {
        "cluster_name": "fake",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            "type": "external",
            "module": "tests_support.fake_cloud.FakeCloud",
            "gcs_address": f"127.0.0.1:{gcs_port}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,  # all are on one host
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "max_workers": most},
        },
        "auth": {"ssh_user": "nobody"},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in NOTHING},
    }
    (folder / "cloud.json").write_text(json.dumps(config))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    command = [
        *(ray_command(), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=0"),
        *(f"--temp-dir={folder / 'ray'}", "--object-store-memory=100000000"),
        *("--include-dashboard=false", f"--port={gcs_port}"),
        *(f"--ray-client-server-port={client_port}", "--dashboard-agent-listen-port=0"),
        *("--min-worker-port=0", "--max-worker-port=0"),
        f"--autoscaling-config={folder / 'cloud.json'}",
    ]
    support = str(Path(__file__).parent.parent)
    environment = own_environment() | variables
    environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    paths = [support, os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (folder / "head.log").open("wb") as log:
        head = start_tree(command, env=environment, cwd=folder, output=log)
    try:
        address = folder / "ray" / "ray_current_cluster"
        wait_until(lambda: head.poll() is not None or address.exists(), seconds=120)
        assert head.poll() is None, (folder / "head.log").read_text()
        yield variables | {"RAY_ADDRESS": address.read_text().strip()}
    finally:
        end_tree(head)
