"""The files of cluster/ as data, with what compose would put in for variables."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
RAY_UP = [CLUSTER / name for name in ("aws.yaml", "gcp.yaml", "onprem.yaml")]
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
COMPOSE = CLUSTER / "compose.yaml"
SBATCH = CLUSTER / "slurm" / "sweep.sbatch"
SECRETS = CLUSTER / "make-secrets.sh"
CERTIFICATES = CLUSTER / "make-certificates.sh"
DOCKERFILE = CLUSTER / "Dockerfile"
PAGE = ROOT / "docs" / "cluster.md"
ALL = [*RAY_UP, *KUBERAY, COMPOSE, SBATCH, SECRETS, CERTIFICATES, DOCKERFILE]

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::-((?:[^{}]|\$\{\w+\})*))?\})")


def read_ray_up(path: Path) -> dict:
    """Return a configuration of `ray up`."""
    return yaml.safe_load(path.read_text())


def read_manifests() -> Iterator[tuple[Path, dict]]:
    """Yield every object of Kubernetes with the file that it is in."""
    for path in KUBERAY:
        yield from ((path, manifest) for manifest in yaml.safe_load_all(path.read_text()))


def read_compose(variables: dict[str, str]) -> dict:
    """Return compose.yaml as compose reads it: YAML's merges first, then variables."""
    return _interpolate(yaml.safe_load(COMPOSE.read_text()), variables)


def interpolate(text: str, variables: dict[str, str]) -> str:
    """Put in variables as compose does: `${NAME}`, `${NAME:-default}`, `$$` for a dollar sign.

    Raises KeyError for a variable without a value or a default.
    """

    def value(match: re.Match[str]) -> str:
        dollar, name, default = match.groups()
        if dollar:
            return "$"
        if default is None:
            return variables[name]
        return variables.get(name) or interpolate(default, variables)

    return _VARIABLE.sub(value, text)


def _interpolate(node: object, variables: dict[str, str]) -> object:
    if isinstance(node, str):
        return interpolate(node, variables)
    if isinstance(node, list):
        return [_interpolate(item, variables) for item in node]
    if isinstance(node, dict):
        return {key: _interpolate(value, variables) for key, value in node.items()}
    return node


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets for whatever runs in it, but for its user's home."""
    (lines,) = re.findall(r"^ENV ((?:.*\\\n)*.*)", DOCKERFILE.read_text(), flags=re.MULTILINE)
    given = dict(word.split("=", 1) for word in lines.replace("\\\n", " ").split())
    return {name: value for name, value in given.items() if name not in ("HOME", "USER")}


def usage(path: Path) -> list[str]:
    """Return the commands that a file's first comment tells to type."""
    lines = path.read_text().splitlines()
    header = [line for line in lines if not line.startswith("#!")]
    end = next(i for i, line in enumerate(header) if not line.startswith("#"))
    return [line[4:].strip() for line in header[:end] if line.startswith("#   ")]


def pods(manifest: dict) -> Iterator[dict]:
    """Yield every pod that an object makes, as its spec."""
    spec = manifest.get("spec", {})
    templates = {
        "Deployment": lambda: [spec["template"]],
        "StatefulSet": lambda: [spec["template"]],
        "RayCluster": lambda: [
            group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
        ],
        "RayJob": lambda: [spec["submitterPodTemplate"]],
    }
    if manifest["kind"] in templates:
        yield from (template["spec"] for template in templates[manifest["kind"]]())


def containers(pod: dict) -> list[dict]:
    """Return a pod's containers, those that run before it included."""
    return [*pod.get("initContainers", []), *pod["containers"]]
