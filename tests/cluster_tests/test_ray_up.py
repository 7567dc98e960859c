"""aws.yaml, gcp.yaml, onprem.yaml: what Ray's own code makes of them, without a cloud to ask."""

import copy
import json
from pathlib import Path

import pytest
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.util import prepare_config, validate_config
from tests_support.cluster_files import CLUSTER, RAY_UP, read_ray_up

CLOUDS = RAY_UP[:2]

on_each = pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
on_each_cloud = pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)


@on_each
def test_ray_takes_the_file_whole(path: Path) -> None:
    validate_config(prepare_config(read_ray_up(path)))


@on_each
def test_ray_would_refuse_a_field_that_it_does_not_know(path: Path) -> None:
    config = read_ray_up(path) | {"idle_timeout": 10}
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(config))


@on_each_cloud
def test_nothing_is_paid_for_but_a_head_without_gpu_while_no_trial_waits(path: Path) -> None:
    config = prepare_config(read_ray_up(path))
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}  # neither a GPU nor room for a trial
    assert {name: kind["min_workers"] for name, kind in types.items()} == {"gpu": 0}
    assert types["gpu"]["resources"]["GPU"] == 1
    assert 0 < types["gpu"]["max_workers"] <= config["max_workers"]
    assert config["idle_timeout_minutes"] == 10


def test_workers_are_on_spot_and_the_head_is_not() -> None:
    aws, gcp = (read_ray_up(path)["available_node_types"] for path in CLOUDS)
    assert aws["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    assert gcp["gpu"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]


def test_no_port_is_left_to_rays_defaults_which_admit_ssh_from_everywhere() -> None:
    aws, gcp = (read_ray_up(path) for path in CLOUDS)
    for kind in aws["available_node_types"].values():
        assert len(kind["node_config"]["SecurityGroupIds"]) == 1
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert "security_group" not in aws["provider"]
    for kind in gcp["available_node_types"].values():
        (interface,) = kind["node_config"]["networkInterfaces"]
        assert interface["subnetwork"].endswith("/subnetworks/unshift")


@on_each
def test_the_token_is_a_file_where_ray_looks_for_it(path: Path) -> None:
    config = read_ray_up(path)
    assert config["file_mounts"]["/home/unshift/.ray/auth_token"] == "~/.config/unshift/ray_token"
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]


@on_each
def test_the_dashboard_listens_on_loopback(path: Path) -> None:
    (start,) = [c for c in read_ray_up(path)["head_start_ray_commands"] if "--head" in c]
    assert "--dashboard-host=127.0.0.1" in start.split()


@on_each
def test_a_container_gets_its_secrets_and_variables_from_rays_own_command(path: Path) -> None:
    config = prepare_config(read_ray_up(path))
    options = config["docker"]["run_options"] + config["docker"]["worker_run_options"]
    command = docker_start_cmds(
        "ubuntu",
        config["docker"]["image"],
        config["file_mounts"],
        config["docker"]["container_name"],
        options,
        config["cluster_name"],
        "/home/unshift",
        "docker",
    )
    for part in (
        "/home/unshift/.ray/auth_token:/home/unshift/.ray/auth_token",
        "/home/unshift/.pgpass:/home/unshift/.pgpass",
        "--env RAY_JOB_STOP_WAIT_TIME_S=120",
        "--gpus all",
        "--net=host registry.example.org/unshift:0.1.0 bash",
    ):
        assert part in command, part


def test_the_host_user_is_the_images_since_mounted_files_are_his_alone() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert "ARG USER_ID=1000\n" in dockerfile and "USER ${USER_ID}\n" in dockerfile
    assert "ENV HOME=/home/unshift " in dockerfile  # where Ray looks for the home of `~/`
    for path in RAY_UP:
        assert any('"$(id -u)" -eq 1000' in c for c in read_ray_up(path)["initialization_commands"])


def test_rays_own_set_up_commands_are_not_run() -> None:
    """They would install a Ray of some other version."""
    for path in RAY_UP:
        config = prepare_config(copy.deepcopy(read_ray_up(path)))
        everything = [*config["setup_commands"], *config["head_setup_commands"]]
        assert [command for command in everything if "pip" in command] == []


def test_every_field_of_an_aws_machine_is_one_that_ec2_knows() -> None:
    """EC2's own description of RunInstances, which boto3 brings along."""
    import botocore.session
    from botocore.validate import ParamValidator

    ec2 = botocore.session.get_session().get_service_model("ec2")
    shape = ec2.operation_model("RunInstances").input_shape
    for name, kind in read_ray_up(CLOUDS[0])["available_node_types"].items():
        request = {"MinCount": 1, "MaxCount": 1} | kind["node_config"]
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        assert ParamValidator().validate(request | {"InstanceKind": "x"}, shape).has_errors()
        market = shape.members["InstanceMarketOptions"].members["MarketType"].enum
        assert (
            kind["node_config"].get("InstanceMarketOptions", {"MarketType": "spot"})["MarketType"]
            in market
        )


def test_every_field_of_a_google_machine_is_one_that_compute_engine_knows() -> None:
    """Compute Engine's own description of an instance, which Google's client brings along."""
    import googleapiclient.discovery_cache

    folder = Path(googleapiclient.discovery_cache.__file__).parent / "documents"
    schemas = json.loads((folder / "compute.v1.json").read_text())["schemas"]
    for name, kind in read_ray_up(CLOUDS[1])["available_node_types"].items():
        assert _unknown(kind["node_config"], schemas["Instance"], schemas) == [], name
    assert _unknown({"scheduling": {"spot": True}}, schemas["Instance"], schemas) == ["spot"]


def _unknown(value: object, schema: dict, schemas: dict) -> list[str]:
    """Return the names and values that a schema of Google's discovery format does not have."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list):
        assert schema["type"] == "array"
        return [found for item in value for found in _unknown(item, schema["items"], schemas)]
    if isinstance(value, dict):
        known = schema["properties"]
        return [
            found
            for key, item in value.items()
            for found in ([key] if key not in known else _unknown(item, known[key], schemas))
        ]
    expected = {"string": str, "integer": int, "boolean": bool}[schema["type"]]
    # 64-bit numbers are strings in JSON, where Google takes plain ones as well.
    if schema.get("format") == "int64":
        expected = int
    allowed = schema.get("enum", [value])
    return [] if isinstance(value, expected) and value in allowed else [str(value)]
