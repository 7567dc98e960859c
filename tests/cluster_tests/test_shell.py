"""Every shell command in the files of cluster/, by shellcheck; and make-secrets.sh, run."""

import configparser
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from tests_support.cluster_files import (
    CERTIFICATES,
    COMPOSE,
    DOCKERFILE,
    PAGE,
    RAY_UP,
    SBATCH,
    SECRETS,
    read_compose,
    read_ray_up,
    usage,
)
from tests_support.local_nodes import variables


def scripts() -> dict[str, str]:
    """Return all shell text by where it stands, each with the shell that runs it."""
    found = {path.name: path.read_text() for path in (SBATCH, SECRETS, CERTIFICATES)}
    for path in RAY_UP:
        for key, commands in read_ray_up(path).items():
            if key.endswith("commands"):
                for number, command in enumerate(commands):
                    found[f"{path.name}-{key}-{number}"] = f"#!/bin/bash\n{command}\n"
    for name, service in read_compose({"HOME": "/home/me"})["services"].items():
        if service.get("command", [None])[0] == "bash":
            found[f"{COMPOSE.name}-{name}"] = f"#!/bin/bash\n{service['command'][2]}\n"
    runs = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
    for number, line in enumerate(line for line in runs if line.startswith("RUN ")):
        found[f"Dockerfile-{number}"] = f"#!/bin/sh\nexport USER_ID=1000\n{line[4:]}\n"
    for path in (*RAY_UP, *(COMPOSE.parent / "kuberay").glob("*.yaml"), SBATCH, SECRETS, COMPOSE):
        found[f"usage-{path.name}"] = "#!/bin/bash\n" + "\n".join(usage(path)) + "\n"
    blocks = PAGE.read_text().split("```sh\n")[1:]
    for number, block in enumerate(blocks):
        found[f"page-{number}"] = "#!/bin/bash\n" + block.split("```")[0]
    return found


SCRIPTS = scripts()


def check(text: str, tmp_path: Path) -> str:
    """Return what shellcheck has to say about a script."""
    (tmp_path / "script").write_text(text)
    # 2164: `cd` that could fail, in commands to type; 2088: Ray itself puts in the home for `~`.
    options = ["--exclude=SC2164,SC2088", "--format=gcc"]
    program = shutil.which("shellcheck", path=variables()["PATH"])
    if program is None:
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    command = [program, *options, str(tmp_path / "script")]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name: str, tmp_path: Path) -> None:
    assert check(SCRIPTS[name], tmp_path) == ""


def test_shellcheck_would_find_something(tmp_path: Path) -> None:
    assert "SC2086" in check("#!/bin/bash\nrm $1\n", tmp_path)
    assert len(SCRIPTS) > 40


def make_secrets(folder: Path, tmp_path: Path) -> str:
    command = ["sh", str(SECRETS)]
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UNSHIFT_SECRETS": str(folder)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert make_secrets(folder, tmp_path) == f"secrets in {folder}: 9 files\n"
    first = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "ray_token").unlink()  # what is missing is made again, and nothing else
    make_secrets(folder, tmp_path)
    second = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in first if first[name] != second[name]} == {"ray_token"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "pgpass").stat().st_mode) == 0o600  # libpq refuses any other
    plain = [first[name] for name in first if name.endswith(("token", "password", "key", "secret"))]
    assert len(set(plain)) == 5 and all(len(value) == 64 for value in plain)


@pytest.mark.parametrize(
    ("secret", "files"),
    [
        ("postgres_password", {"pgpass"}),
        ("mlflow_password", {"mlflow_credentials"}),
        ("s3_secret", {"aws_credentials", "s3.json"}),
    ],
)
def test_a_new_secret_is_in_all_files_that_hold_it(
    tmp_path: Path, secret: str, files: set[str]
) -> None:
    make_secrets(tmp_path, tmp_path)
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))  # made long ago
    (tmp_path / secret).unlink()
    make_secrets(tmp_path, tmp_path)
    second = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {name for name in first if first[name] != second[name]} == {secret, *files}
    assert all(second[secret] in second[name] for name in files)


def test_secrets_are_in_the_formats_of_who_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder, tmp_path)
    read = {path.name: path.read_text() for path in folder.iterdir()}
    ini = configparser.ConfigParser()
    ini.read_string(read["mlflow_credentials"] + read["aws_credentials"])
    assert ini["mlflow"]["mlflow_tracking_password"] == read["mlflow_password"]
    assert ini["default"]["aws_secret_access_key"] == read["s3_secret"]
    (identity,) = json.loads(read["s3.json"])["identities"]
    assert identity["credentials"][0]["secretKey"] == read["s3_secret"]
    assert read["pgpass"] == f"*:5432:*:unshift:{read['postgres_password']}\n"


def test_each_machine_gets_a_certificate_once_that_the_authority_stands_for(tmp_path: Path) -> None:
    variables = {"PATH": "/usr/bin:/bin", "UNSHIFT_SECRETS": str(tmp_path)}

    def make(*machines: str) -> dict[str, bytes]:
        command = ["sh", str(CERTIFICATES), *machines]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == (f"certificates in {tmp_path}/tls\n", "")
        return {path.name: path.read_bytes() for path in (tmp_path / "tls").glob("*.[ck]*")}

    first = make("192.0.2.10")
    second = make("192.0.2.10", "head.example.org")
    assert first.items() <= second.items()
    authority = x509.load_pem_x509_certificate(second["authority.crt"])
    for machine in ("192.0.2.10", "head.example.org"):
        own = x509.load_pem_x509_certificate(second[f"{machine}.crt"])
        own.verify_directly_issued_by(authority)
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert machine in [str(name.value) for name in names]
        assert stat.S_IMODE((tmp_path / "tls" / f"{machine}.key").stat().st_mode) == 0o600
    assert second["authority.key"] != second["192.0.2.10.key"]


def test_compose_asks_for_files_that_are_made(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets", tmp_path)
    mounted = read_compose({"HOME": "", "UNSHIFT_SECRETS": str(tmp_path / "secrets")})["secrets"]
    assert [s["file"] for s in mounted.values() if not Path(s["file"]).is_file()] == []


def test_ray_up_mounts_files_that_are_made(tmp_path: Path) -> None:
    make_secrets(tmp_path / ".config" / "unshift", tmp_path)
    for path in RAY_UP:
        for source in yaml.safe_load(path.read_text())["file_mounts"].values():
            assert (tmp_path / source.removeprefix("~/")).is_file(), source
