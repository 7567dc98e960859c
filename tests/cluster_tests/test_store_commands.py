"""The commands of compose.yaml that start the stores, run: PostgreSQL, SeaweedFS, MLflow over both.

Only addresses, ports and folders are others. What the images of PostgreSQL do with its variables
is done here by hand.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests_support.cluster_files import read_compose
from tests_support.local_nodes import Node, free_ports, knock, make_secrets, replaced, variables

pytestmark = pytest.mark.slow

FILE = read_compose({"HOME": "/home/me"})
SERVICES = FILE["services"]


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian keeps off the PATH."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = shutil.which("initdb") or next(iter(debian), "")
    return Path(found).parent if found else None


@dataclass(frozen=True)
class Stores:
    """The servers that run, and a client's environment."""

    mlflow: str
    objects: str
    secrets: Path
    env: dict[str, str]
    """Of a client that finds its credentials in files."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder = tmp_path_factory.mktemp("stores")
    secrets = make_secrets(folder / "secrets")
    postgres, mlflow, s3, *others = free_ports(6)
    with ExitStack() as stack:
        stack.enter_context(_Postgres(programs, secrets, postgres))
        objects = _objects_command(secrets, folder, ports=[s3, *others])
        weed = stack.enter_context(Node(objects, env=variables(), log=folder / "weed.log"))
        health = replaced(SERVICES["objects"]["healthcheck"]["test"][-1], {"8333": str(s3)})
        weed.wait_until(lambda: knock(health)[0] == 200)
        endpoint = f"http://127.0.0.1:{s3}"
        command, env = _mlflow(secrets, folder, port=mlflow, postgres=postgres, s3=endpoint)
        server = stack.enter_context(Node(command, env=env, log=folder / "mlflow.log"))
        health = replaced(SERVICES["mlflow"]["healthcheck"]["test"][-1], {"5000": str(mlflow)})
        server.wait_until(lambda: knock(health) == (200, "OK"))
        yield Stores(f"http://127.0.0.1:{mlflow}", endpoint, secrets, _client(secrets, folder))


class _Postgres:
    """A server as the image of compose.yaml makes it: with a password for every connection."""

    def __init__(self, programs: Path, secrets: Path, port: int) -> None:
        self._programs, self._port = programs, port
        given = SERVICES["postgres"]["environment"]
        self._make = [
            *(f"--username={given['POSTGRES_USER']}", f"--pwfile={secrets / 'postgres_password'}"),
            *given["POSTGRES_INITDB_ARGS"].split(),
        ]
        self._first = given["POSTGRES_DB"]
        self._sql = FILE["configs"]["databases"]["content"]
        self._password = (secrets / "postgres_password").read_text()

    def __enter__(self) -> "_Postgres":
        # PostgreSQL does not run as root, and its user cannot enter root's folders.
        self._folder = Path(tempfile.mkdtemp(prefix="unshift-pg-", dir="/tmp"))
        password = self._folder / "password"
        password.write_text(self._password)
        self._make[1] = f"--pwfile={password}"
        if os.geteuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, "postgres")
        data = str(self._folder / "data")
        self._run("initdb", "--pgdata", data, *self._make)
        options = f"-p {self._port} -h 127.0.0.1 -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "--pgdata", data, "--options", options, "--log", log, "--wait", "start")
        self._run("psql", *self._as_user("postgres"), f"CREATE DATABASE {self._first}")
        self._run("psql", *self._as_user(self._first), self._sql)
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "--pgdata", str(self._folder / "data"), "--mode=immediate", "stop")
        shutil.rmtree(self._folder)

    def _as_user(self, database: str) -> list[str]:
        url = f"postgresql://unshift@127.0.0.1:{self._port}/{database}"
        return ["--no-psqlrc", "--quiet", url, "--command"]

    def _run(self, program: str, *arguments: str) -> None:
        path = self._programs / program
        found = str(path) if path.exists() else shutil.which(program)
        assert found is not None, program
        done = subprocess.run(
            [found, *arguments],
            env=os.environ | {"PGPASSWORD": self._password},
            user="postgres" if os.geteuid() == 0 else None,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def _objects_command(secrets: Path, folder: Path, *, ports: list[int]) -> str:
    (folder / "objects").mkdir()
    command = replaced(
        " ".join(SERVICES["objects"]["command"]),
        {
            "/run/secrets": str(secrets),
            "-dir=/data": f"-dir={folder / 'objects'}",
            "-s3.ip.bind=0.0.0.0": "-s3.ip.bind=127.0.0.1",
            "8333": str(ports[0]),
        },
    )
    inner = zip(("master.port", "volume.port", "filer.port"), ports[1:], strict=True)
    grpc = zip(("s3", "master", "volume", "filer"), free_ports(4), strict=True)
    return " ".join(
        [
            f"weed {command}",
            *(f"-{name}={port}" for name, port in inner),
            *(f"-{name}.port.grpc={port}" for name, port in grpc),
        ]
    )


def _mlflow(
    secrets: Path, folder: Path, *, port: int, postgres: int, s3: str
) -> tuple[str, dict[str, str]]:
    (folder / "home").mkdir()
    database = {"unshift@postgres/": f"unshift@127.0.0.1:{postgres}/"}
    (folder / "basic_auth.ini").write_text(
        replaced(FILE["configs"]["basic_auth"]["content"], database)
    )
    service = SERVICES["mlflow"]
    changes = {
        "/run/secrets": str(secrets),
        "--host 0.0.0.0": "--host 127.0.0.1",
        "--port 5000": f"--port {port}",
        "--workers 2": "--workers 1",
        "mlflow:5000,127.0.0.1:5000,localhost:5000": f"mlflow:5000,127.0.0.1:{port}",
        # PostgreSQL's port is any here, and the password file is for 5432.
        "'*:5432:": "'*:*:",
    }
    given = service["environment"] | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "PGPASSFILE": str(folder / "home" / "pgpass"),
        "AWS_ENDPOINT_URL": s3,
        "AWS_SHARED_CREDENTIALS_FILE": str(secrets / "aws_credentials"),
    }
    assert given.keys() == service["environment"].keys()
    return replaced(service["command"][2], changes | database), variables(**given)


def _client(secrets: Path, folder: Path) -> dict[str, str]:
    home = folder / "client"
    (home / ".mlflow").mkdir(parents=True)
    shutil.copy(secrets / "mlflow_credentials", home / ".mlflow" / "credentials")
    return variables(HOME=str(home), MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")


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
    """Return what the bucket has, asked with the file of keys, by the library that MLflow uses."""
    code = (
        "import boto3; found = boto3.client('s3').list_objects_v2(Bucket='unshift')['Contents']\n"
        "print(*(item['Key'] for item in found), sep='\\n')"
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
