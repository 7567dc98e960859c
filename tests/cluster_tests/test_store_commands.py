"""The commands of compose.yaml that start the stores, run (tests_support/stores.py)."""

import json
import subprocess
import sys

import pytest
from tests_support.local_nodes import knock
from tests_support.stores import Stores

pytestmark = pytest.mark.slow


def test_mlflow_answers_401_without_a_password(stores: Stores) -> None:
    experiments = f"{stores.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert knock(experiments)[0] == 401
    assert knock(stores.mlflow)[0] == 401
    assert knock(experiments, Authorization="Basic YWRtaW46YWRtaW4=")[0] == 401  # admin:admin


def test_mlflow_knows_its_name_in_compose_and_no_other(stores: Stores) -> None:
    """Else a web page could reach it through the browser of someone who is logged in."""
    url = f"{stores.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert knock(url, Host="mlflow:5000")[0] == 401
    assert knock(url, Host="evil.example")[0] == 403


RECORD = """
import json, mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run() as run:
    mlflow.log_metric("stft", 1.25)
    mlflow.log_text("heard", "note.txt")
read = mlflow.get_run(run.info.run_id)
print(json.dumps([read.data.metrics, read.info.artifact_uri.split(":")[0]]))
print(mlflow.artifacts.load_text(read.info.artifact_uri + "/note.txt"))
"""


def test_a_client_with_its_file_of_credentials_writes_to_both_stores(stores: Stores) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RECORD, stores.mlflow],
        env=stores.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *_, read, text = done.stdout.splitlines()
    assert json.loads(read) == [{"stft": 1.25}, "mlflow-artifacts"]
    assert text == "heard"
    assert _object_keys(stores).count("note.txt") == 1


def test_the_object_store_refuses_who_brings_no_key(stores: Stores) -> None:
    assert knock(stores.objects)[0] == 403
    assert knock(f"{stores.objects}/unshift?list-type=2")[0] == 403


def _object_keys(stores: Stores) -> str:
    """Return what MLflow has in the bucket, asked as it asks: with its library and file of keys."""
    code = (
        "import boto3\n"
        "pages = boto3.client('s3').get_paginator('list_objects_v2')\n"
        "for page in pages.paginate(Bucket='unshift', Prefix='mlflow/'):\n"
        "    print(*(item['Key'] for item in page['Contents']), sep='\\n')"
    )
    keys = str(stores.secrets / "aws_credentials")
    given = {"AWS_ENDPOINT_URL": stores.objects, "AWS_SHARED_CREDENTIALS_FILE": keys}
    env = stores.env | given | {"AWS_DEFAULT_REGION": "us-east-1"}
    return subprocess.check_output([sys.executable, "-c", code], env=env, text=True)


def test_no_command_line_holds_a_secret(stores: Stores) -> None:
    lines = subprocess.check_output(["ps", "-eo", "args"], text=True)
    assert "mlflow" in lines
    for name in ("postgres_password", "mlflow_password", "mlflow_flask_key", "s3_secret"):
        assert (stores.secrets / name).read_text() not in lines, name
