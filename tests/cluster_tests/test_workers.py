"""`python -m cluster.workers` where no GPU comes; where one does: test_start_commands.py."""

import os
import subprocess
import sys

import pytest

from cluster.local import LocalHead

pytestmark = pytest.mark.slow


def run(head: LocalHead, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the module with a head's variables."""
    command = [sys.executable, "-m", "cluster.workers", *words]
    env = os.environ | head.client_environment
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_without_one_gpu_the_command_is_not_begun(local_head: LocalHead) -> None:
    done = run(local_head, "--gpus", "2", "--wait-minutes", "0", "--", "echo", "begun")
    assert (done.returncode, done.stdout) == (1, "")
    first, last = done.stderr.splitlines()
    assert first == "0 GPUs on 1 nodes are there, 2 GPUs on 1 nodes wanted"
    assert last.startswith("Error: no GPU after 0 min; `ray status` says")


def test_a_cluster_without_gpus_is_waited_for_by_its_nodes(local_head: LocalHead) -> None:
    done = run(local_head, "--nodes", "2", "--wait-minutes", "0.02", "--", "echo", "--begun")
    assert (done.returncode, done.stdout) == (0, "--begun\n")
