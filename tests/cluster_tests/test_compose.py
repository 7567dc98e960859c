"""compose.yaml by the Compose Specification, and what that does not say: names, ports, secrets."""

import json
from pathlib import Path

import compose_spec
import pytest
from tests_support.cluster_files import COMPOSE, DOCKERFILE, interpolate, read_compose

HOME = {"HOME": "/home/me"}
FILE = read_compose(HOME)
SERVICES = FILE["services"]

on_each_service = pytest.mark.parametrize("name", SERVICES)


def test_it_is_a_compose_file() -> None:
    assert set(compose_spec.PyCompose.from_json(json.dumps(FILE)).service_names()) == set(SERVICES)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [("head", {"port": ["127.0.0.1:1:1"]}), ("head", {"ports": ["127.0.0.1:x"]})],
)
def test_a_wrong_field_is_refused(place: str, wrong: dict) -> None:
    changed = json.loads(json.dumps(FILE))
    changed["services"][place].update(wrong)
    with pytest.raises(ValueError, match="port"):
        compose_spec.PyCompose.from_json(json.dumps(changed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$$(cat x)", "$(cat x)"),
        ("${A:-b}/c", "b/c"),
        ("${A:-${HOME}/x}", "/home/me/x"),
        ("${HOME}", "/home/me"),
    ],
)
def test_variables_are_put_in_as_compose_does(text: str, expected: str) -> None:
    assert interpolate(text, HOME) == expected


@on_each_service
def test_all_that_a_service_names_is_there(name: str) -> None:
    service = SERVICES[name]
    assert service.get("depends_on", {}).keys() <= SERVICES.keys()
    assert set(service["networks"]) <= FILE["networks"].keys()
    for kind in ("secrets", "configs"):
        used = {u if isinstance(u, str) else u["source"] for u in service.get(kind, [])}
        assert used <= FILE[kind].keys()
    sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
    assert {source for source in sources if "/" not in source} <= FILE["volumes"].keys()


def test_nothing_is_declared_for_nobody() -> None:
    used = json.dumps(SERVICES)
    names = [*FILE["secrets"], *FILE["configs"], *FILE["volumes"], *FILE["networks"]]
    assert [name for name in names if f'"{name}' not in used] == []


@on_each_service
def test_who_waits_for_health_waits_for_a_service_that_tells_it(name: str) -> None:
    for other, condition in SERVICES[name].get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


@on_each_service
def test_a_service_reads_only_secrets_that_it_was_given(name: str) -> None:
    service = SERVICES[name]
    given = {
        u if isinstance(u, str) else u.get("target", u["source"])
        for u in service.get("secrets", [])
    }
    words = json.dumps([service.get("command"), service.get("environment")])
    read = {
        part.split("/run/secrets/")[1]
        for part in words.replace(")", '"').split('"')
        if "/run/secrets/" in part
    }
    assert read <= given, read - given


def test_only_loopback_is_published_and_only_what_asks_who_one_is() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published == {
        "head": ["127.0.0.1:8265:8265"],
        "mlflow": ["127.0.0.1:5000:5000"],
    }
    assert FILE["networks"]["inside"] == {"internal": True}
    outside = {name for name, s in SERVICES.items() if s["networks"] != ["inside"]}
    assert outside == published.keys()


@on_each_service
def test_a_container_has_no_more_rights_than_it_uses(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "cap_add"} & service.keys()
    # Images of others begin as root, and change to another user; that needs capabilities.
    assert service["image"].startswith("unshift:") or service["user"] not in ("root", "0", "0:0")


def test_ray_nodes_tell_one_another_addresses_that_all_of_them_reach() -> None:
    """By itself a head that is on two networks takes the address by which it gets out."""
    head, worker = SERVICES["head"], SERVICES["worker"]
    assert worker["networks"] == SERVICES["gpu-worker"]["networks"] == ["inside"]
    (alias,) = head["networks"]["inside"]["aliases"]
    assert not head["networks"]["front"]  # the name is one address then
    assert f"read -r address _ < <(getent ahostsv4 {alias})\n" in head["command"][2]
    assert '"--node-ip-address=$address"' in head["command"][2]


def test_the_object_store_takes_only_the_space_that_it_fills() -> None:
    """The image's entrypoint would have it set aside 7 GB at the first start."""
    assert "-master.volumePreallocate=false" in SERVICES["objects"]["command"]


@on_each_service
def test_what_keeps_something_has_time_to_write_it_out(name: str) -> None:
    """Docker kills after 10 s; SeaweedFS alone waits 10 s before it begins to end."""
    service = SERVICES[name]
    if any(not volume.startswith(("/", "$")) for volume in service.get("volumes", [])):
        assert int(service["stop_grace_period"].removesuffix("s")) >= 60


def test_the_image_is_built_from_the_dockerfile_and_its_users_home_is_meant() -> None:
    build = SERVICES["head"]["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
    assert "ENV HOME=/home/unshift " in DOCKERFILE.read_text()
    assert SERVICES["head"]["environment"]["PGPASSFILE"].startswith("/home/unshift/")


def test_secrets_are_files_outside_the_repository() -> None:
    folder = Path("/home/me/.config/unshift")
    assert all(Path(secret["file"]).parent == folder for secret in FILE["secrets"].values())
    elsewhere = read_compose(HOME | {"UNSHIFT_SECRETS": "/run/mine"})["secrets"]
    assert elsewhere["ray_token"] == {"file": "/run/mine/ray_token"}
