"""The memory that this process may take, from files as Linux has them."""

import psutil
import pytest

from sweeps.engine.machine_memory import total_bytes

TOTAL = psutil.virtual_memory().total


@pytest.fixture
def total(tmp_path):
    """Return a function from /proc/self/cgroup and the files of control groups to the memory."""

    def read(mine, **files):
        (tmp_path / "mine").write_text(mine)
        for name, text in files.items():
            file = tmp_path / "cgroups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return total_bytes(mine=tmp_path / "mine", cgroups=tmp_path / "cgroups")

    return read


CASES = {
    "a container": ("0::/\n", {"memory.max": "1000\n"}, 1000),
    "no limit": ("0::/\n", {"memory.max": "max\n"}, TOTAL),
    "more than there is": ("0::/\n", {"memory.max": f"{10 * TOTAL}\n"}, TOTAL),
    "a job in a job": (
        "0::/slurm/job\n",
        {"slurm/memory.max": "2000\n", "slurm/job/memory.max": "3000\n"},
        2000,
    ),
    "version 1": (
        "8:pids:/x\n4:cpu,memory:/docker/1f\n",
        {"memory/memory.limit_in_bytes": "1000\n", "memory.max": "7\n"},
        1000,
    ),
    "a group beside": ("0::/mine\n", {"other/memory.max": "7\n"}, TOTAL),
}


@pytest.mark.parametrize("case", CASES)
def test_the_least_limit_counts(total, case):
    mine, files, expected = CASES[case]
    assert total(mine, **files) == expected


def test_where_there_are_no_control_groups_the_machine_counts(tmp_path):
    assert total_bytes(mine=tmp_path / "none", cgroups=tmp_path) == TOTAL
