"""A thousand trivial trials through a real driver: Ray Tune, study, recorder, MLflow's writer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_a_driver_grows_by_less_than_50_mb_from_trial_100_to_1000():
    given = ["--ray", "--trials", "1000", "--workers", "2", "--reports", "4"]
    done = subprocess.run(
        [sys.executable, TESTS / "benchmarks" / "scale.py", *given],
        env=os.environ | {"PYTHONPATH": str(TESTS / "support")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^([\d,]+) ended after .*: (\d+) MB resident", done.stdout, re.MULTILINE)
    resident_mb = {ended: int(size) for ended, size in told}
    print(f"MB resident, by trials ended: {resident_mb}")
    assert resident_mb["1,000"] - resident_mb["100"] < 50
    assert "\n1,000 trials, " in done.stdout
