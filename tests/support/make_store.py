"""Make a storage root as this version of the code leaves it, for tests of later versions.

    cd tests/support && python make_store.py ../sweeps_tests/stores/revision_N.tar.xz

Do so, under a new name, whenever the revision of stores or of the trainer is raised, and leave the
archives of earlier versions as they are. tests/sweeps_tests/test_old_stores.py opens each of them.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import soundfile
from tests_support.driven_sweep import ROOT, TINY_TRIALS

FOLDER = Path("/tmp/unshift-store")
"""MLflow's database has absolute paths in it: these are the same wherever a store is made."""
LEFT_OUT = {"cache", "locks", "code"}
"""What is made anew, and a model's copy of the trainer, which nothing here reads."""


def main(archive):
    """Run a sweep of two tiny trials and pack its root."""
    FOLDER.mkdir()  # not over somebody's
    try:
        _write_music(FOLDER / "music")
        _run_sweep()
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(FOLDER / "root", "root", filter=_keep)
    finally:
        shutil.rmtree(FOLDER)


def _write_music(folder):
    folder.mkdir()
    time_s = np.arange(44_100) / 44_100
    for number in range(4):
        tone = 0.3 * np.sin(2 * np.pi * 110 * 1.5**number * time_s)
        soundfile.write(folder / f"{number}.wav", tone, 44_100)


def _run_sweep():
    command = [sys.executable, "sweeps/lr_momentum.py", "--data", FOLDER / "music"]
    command += ["--storage", FOLDER / "root", "--size", "demo", "--commit", "of this archive"]
    command += ["--trials", 2, "--max-steps", 8, "--concurrency", 1]
    smaller = "model.channels=[2]"
    command += [part for setting in (*TINY_TRIALS, smaller) for part in ("--set", setting)]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def _keep(member):
    name = Path(member.name)
    is_left_out = name.suffix == ".lock" or name.name in LEFT_OUT
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if is_left_out else member


if __name__ == "__main__":
    main(sys.argv[1])
