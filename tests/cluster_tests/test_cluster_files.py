"""What holds for every file of cluster/: told in three commands, no secret, nothing that drifts."""

import importlib.util
import math
import re
import shlex
from collections import Counter
from pathlib import Path

import click
import pytest
from mlflow.cli import cli as mlflow_commands
from ray.scripts.scripts import cli as ray_commands
from tests_support.cluster_files import (
    ALL,
    DOCKERFILE,
    PAGE,
    ROOT,
    SBATCH,
    read_compose,
    read_manifests,
    usage,
)

PLACES = [path for path in ALL if path != DOCKERFILE]
on_each = pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)


@on_each
def test_a_file_says_what_it_is_and_how_it_is_used_in_three_commands_at_most(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#!")]
    assert re.match(r"# [A-Z].*[.:]", lines[0]), lines[0]
    assert 1 <= len(usage(path)) <= 3


@on_each
def test_a_file_is_on_the_page(path: Path) -> None:
    assert f"{path.relative_to(ROOT)}" in PAGE.read_text()


def entropy_bits(word: str) -> float:
    """Return the bits that a letter of a word carries by how often each occurs in it."""
    return -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())


def secrets_in(text: str) -> list[str]:
    """Return what looks like a secret: keys' own shapes, a password in a URL, random letters."""
    shapes = r"AKIA[0-9A-Z]{16}|-----BEGIN|ghp_\w{20}|://[^/\s:@]+:[^/\s@$]+@"
    words = re.findall(r"\b(?=\w*\d)(?=\w*[a-z])[A-Za-z0-9]{20,}\b", text)
    assigned = re.findall(
        r"(?im)^\s*(?:-\s*)?[\w.-]*(?:password|secret|token)[\w.-]*\s*[:=]\s*[\"']?[A-Za-z0-9]{8,}$",
        text,
    )
    return [*re.findall(shapes, text), *(w for w in words if entropy_bits(w) > 3.3), *assigned]


@on_each
def test_a_file_holds_no_secret(path: Path) -> None:
    assert secrets_in(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://unshift:hunter2@db/unshift",
        "x: 7c71da2c198757ba1baa7635332148f04a987dd49dcd65b236972c4ab006dd54",
        "aws_access_key_id = AKIAABCDEFGHIJKLMNOP",
        "POSTGRES_PASSWORD: correcthorse",
    ],
)
def test_a_secret_would_be_found(text: str) -> None:
    assert secrets_in(text)


@on_each
def test_an_image_has_a_version_that_stays(path: Path) -> None:
    text = path.read_text()
    images = re.findall(r"^\s*(?:- )?image: (\S+)|^FROM (\S+)", text, flags=re.MULTILINE)
    for image in (first or second for first, second in images):
        _, _, tag = image.rpartition(":")
        assert re.match(r"\d+\.\d+", tag), image


def test_there_are_images_to_look_at() -> None:
    found = re.findall(r"image: (\S+)", "".join(path.read_text() for path in ALL))
    assert len(found) >= 10


@on_each
def test_nothing_is_published_to_everyone(path: Path) -> None:
    """By compose; by Kubernetes (also in test_kuberay.py); by a dashboard outside a container."""
    text = path.read_text()
    assert not re.search(
        r"0\.0\.0\.0:\d|LoadBalancer\b(?!,)(?=\s*$)|NodePort|hostPort|hostNetwork", text
    )
    if path.name not in ("compose.yaml", "raycluster.yaml"):
        assert "dashboard-host=0.0.0.0" not in text


RUNNERS = {"ray": ray_commands, "mlflow": mlflow_commands}


def command_lines() -> list[str]:
    """Return every command line of `ray` and `mlflow` in the files and the page."""
    text = "\n".join(path.read_text() for path in (*ALL, PAGE))
    text = text.replace("\\\n", " ").replace("$$", "$")
    found = re.findall(r"(?:^|[\s;&`\"])((?:ray|mlflow) (?:[a-z]+)[^`\n;&|#]*)", text)
    for service in read_compose({"HOME": "/home/me"})["services"].values():
        for words in (service.get("command", []), service.get("entrypoint", [])):
            words = words[2:] if words[:2] == ["tini", "--"] else words
            if words and words[0] in RUNNERS:
                found.append(shlex.join(words))
    for _, manifest in read_manifests():
        for pod in [manifest.get("spec", {}).get("template", {}).get("spec", {})]:
            for container in pod.get("containers", []):
                if container.get("args", [""])[0] in RUNNERS:
                    found.append(shlex.join(container["args"]))
    return found


def unknown_options(line: str) -> list[str]:
    """Return the options of a command line that its program does not have."""
    words = line.split(" -- ")[0].split()
    command: click.Command = RUNNERS[words.pop(0)]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    given = [
        word.strip("'\"()").split("=")[0] for word in words if word.strip("'\"").startswith("--")
    ]
    return [option for option in given if option not in known and option != "--"]


def test_every_command_of_ray_and_mlflow_exists_with_its_options() -> None:
    lines = command_lines()
    assert len([line for line in lines if "--" in line]) >= 15
    assert [(line, unknown_options(line)) for line in lines if unknown_options(line)] == []


def test_an_option_that_does_not_exist_would_be_found() -> None:
    assert unknown_options("ray start --head --dashbord-port=1") == ["--dashbord-port"]
    assert unknown_options("mlflow server --app-nam x") == ["--app-nam"]


def test_the_array_of_the_batch_script_has_options_that_exist() -> None:
    (words,) = re.findall(r"ray_start=\(\n(.*?)\n\)", SBATCH.read_text(), flags=re.DOTALL)
    lines = " ".join(line.split(" #")[0] for line in words.splitlines())
    assert unknown_options(lines.replace('"', "")) == []


def test_every_script_and_module_that_is_run_exists() -> None:
    text = "\n".join(path.read_text() for path in (*ALL, PAGE))
    scripts = set(re.findall(r"(?:/opt/unshift/)?(sweeps/\w+\.py)", text))
    assert scripts and all((ROOT / script).is_file() for script in scripts)
    modules = set(re.findall(r"python -m ([\w.]+)", text)) - {"pip"}
    assert "cluster.workers" in modules
    assert all(importlib.util.find_spec(module) for module in modules)


def test_every_variable_of_ray_is_one_that_it_reads() -> None:
    """By name in its source or programs: a misspelt one would change nothing, silently."""
    text = "\n".join(path.read_text() for path in (*ALL, PAGE))
    names = set(re.findall(r"\bRAY_[A-Za-z_]\w*|\b[A-Z]+_METRIC_PORT\b", text))
    own = {"RAY_HEAD_IP"}  # of `ray up`
    folder = Path(importlib.util.find_spec("ray").submodule_search_locations[0])
    sources = [*folder.glob("_private/**/*.py"), *folder.glob("dashboard/**/*.py")]
    sources += [*folder.glob("_common/**/*.py"), *folder.glob("autoscaler/**/*.py")]
    sources += [folder / "_raylet.so"]
    content = b"".join(path.read_bytes() for path in sources)
    assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_STOP_WAIT_TIME_S"} <= names
    assert [name for name in names - own if not _is_read(name, content)] == []


def _is_read(name: str, content: bytes) -> bool:
    """Whether a name occurs whole; one in lower case is a field of Ray's C++ settings."""
    field = name.removeprefix("RAY_")
    wanted = field if field.islower() else name
    return re.search(rb"(?<!\w)%s(?!\w)" % wanted.encode(), content) is not None
