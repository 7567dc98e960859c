"""The variables do what they are set for, and only as defaults."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import environment

PHONES_HOME = """
from ray._common.usage.usage_lib import usage_stats_enabled
from mlflow.telemetry.utils import is_telemetry_disabled
print(usage_stats_enabled(), not is_telemetry_disabled())
"""


@pytest.mark.parametrize(("first", "expected"), [("", "True True"), ("apply()", "False False")])
def test_applying_is_what_keeps_ray_and_mlflow_from_phoning_home(
    first: str, expected: str, tmp_path: Path
) -> None:
    # Without pytest's own variables and a CI's, on which MLflow is silent by itself.
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    code = f"from cluster.environment import apply\n{first}\n{PHONES_HOME}"
    run = subprocess.run(
        [sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True
    )
    assert run.stdout.split("\n")[-2] == expected


def test_ray_knows_every_name_for_tune() -> None:
    from ray.air.constants import AIR_ENV_VARS
    from ray.train.constants import RAY_CHDIR_TO_TRIAL_DIR
    from ray.tune.constants import TUNE_ENV_VARS

    assert environment.TUNE.keys() <= TUNE_ENV_VARS | AIR_ENV_VARS | {RAY_CHDIR_TO_TRIAL_DIR}


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_FUNCTION_THREAD_TIMEOUT_S", "5")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    environment.apply()
    assert os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] == "5"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
