"""aws.yaml, gcp.yaml, onprem.yaml: what Ray's own code makes of them, without a cloud to ask."""

import copy
import json
import subprocess
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from ray.autoscaler._private.aws import node_provider as aws_node_provider
from ray.autoscaler._private.command_runner import SSHOptions
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import NodeState, NodeStatus
from ray.core.generated.instance_manager_pb2 import Instance, NodeKind
from tests_support.cluster_files import CLUSTER, RAY_UP, read_ray_up

from sweeps.engine.placement import HOST_BYTES, MEMORY_STEP_BYTES

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


def to_launch(config: dict, waiting: list[dict[str, float]]) -> dict[str, int]:
    """Return what Ray's newer autoscaler would start beside a head, by type."""
    config["auth"].pop("ssh_private_key", None)
    config["file_mounts"] = {}
    read = AutoscalingConfig(config, skip_content_hash=True)
    kind = read.get_head_node_type()
    head = AutoscalerInstance(
        cloud_instance_id="head",
        ray_node=NodeState(
            node_id=b"0" * 28,
            instance_id="head",
            ray_node_type_name=kind,
            status=NodeStatus.IDLE,
        ),
        im_instance=Instance(
            instance_id="head",
            cloud_instance_id="head",
            instance_type=kind,
            status=Instance.RAY_RUNNING,
            node_kind=NodeKind.HEAD,
        ),
    )
    reply = ResourceDemandScheduler(MagicMock()).schedule(
        SchedulingRequest(
            node_type_configs=read.get_node_type_configs(),
            max_num_nodes=read.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(
                [ResourceRequestUtil.make(resources) for resources in waiting]
            ),
            current_instances=[head],
            disable_launch_config_check=True,
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def as_resolved(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Return a configuration as the head gets it: on AWS with what its machine types have."""
    config = prepare_config(read_ray_up(path))
    if config["provider"]["type"] != "aws":
        return config
    machines = [
        {
            "InstanceType": kind["node_config"]["InstanceType"],
            "VCpuInfo": {"DefaultVCpus": 4},
            "MemoryInfo": {"SizeInMiB": 16384},
        }
        for kind in config["available_node_types"].values()
    ]
    monkeypatch.setattr(aws_node_provider, "list_ec2_instances", lambda *_: machines)
    return aws_node_provider.AWSNodeProvider.fillout_available_node_types_resources(config)


@on_each_cloud
def test_a_trial_that_waits_brings_a_worker(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = -(-HOST_BYTES // MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES
    waiting = [{"CPU": 1, "GPU": 1, "memory": memory}] * 3
    assert to_launch(as_resolved(path, monkeypatch), waiting) == {"gpu": 3}


def test_without_memory_a_type_is_never_started_for_a_trial() -> None:
    config = prepare_config(read_ray_up(CLOUDS[1]))
    del config["available_node_types"]["gpu"]["resources"]["memory"]
    assert to_launch(config, [{"CPU": 1, "GPU": 1, "memory": HOST_BYTES}]) == {}


def test_own_machines_are_started_by_the_autoscaler_that_starts_all_of_them() -> None:
    config = read_ray_up(RAY_UP[2])
    (start,) = [c for c in config["head_start_ray_commands"] if "--head" in c]
    assert start.startswith("RAY_enable_autoscaler_v2=0 ray start ")
    workers = len(config["provider"]["worker_ips"])
    # The newer one counts the head. Once it no longer does, this file can do without the variable.
    assert to_launch(config, []) == {"local.cluster.node": workers - 1}
    before = "ray() { printenv RAY_enable_autoscaler_v2; }; export RAY_enable_autoscaler_v2=1; "
    # Ray puts such an export before the command.
    assert subprocess.check_output(["bash", "-c", before + start], text=True) == "0\n"


@on_each_cloud
def test_docker_is_asked_when_rays_connection_of_before_the_group_is_closed(path: Path) -> None:
    *_, join, wait = read_ray_up(path)["initialization_commands"]
    assert "usermod --append --groups docker" in join
    kept = SSHOptions("key", control_path="/tmp").arg_dict["ControlPersist"]
    assert int(wait.removeprefix("sleep ")) > int(kept.removesuffix("s"))


def test_a_google_machine_has_a_disk_that_it_takes_and_keys_from_metadata() -> None:
    config = read_ray_up(CLOUDS[1])
    for kind in config["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        zone = config["provider"]["availability_zone"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"
        assert kind["node_config"]["metadata"]["items"] == [
            {"key": "enable-oslogin", "value": "FALSE"}
        ]


@pytest.mark.parametrize("there", [(), ("docker",), ("docker", "nvidia-container-runtime-hook")])
@pytest.mark.parametrize("known", [True, False])
def test_docker_and_nvidias_hook_are_installed_where_they_are_missing(
    there: tuple[str, ...], known: bool, tmp_path: Path
) -> None:
    (install,) = [c for c in read_ray_up(CLOUDS[1])["initialization_commands"] if "apt()" in c]
    log = tmp_path / "log"
    # Who knows no package of NVIDIA's at first does once there is a list.
    sudo = f"""#!/bin/sh
case "$*" in
*curl*|*tee*|*systemctl*) echo "$*" >> {log}; cat > /dev/null;;
*toolkit*) echo toolkit >> {log}; {str(known).lower()} || grep -q nvidia.list {log};;
*) echo "$*" >> {log};;
esac
"""
    for name, text in {"sudo": sudo, **dict.fromkeys(there, "#!/bin/sh\n")}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name in ("sh", "cat", "grep"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    environment = {"PATH": str(tmp_path)}
    subprocess.run(
        ["/bin/bash", "-c", install],
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    done = log.read_text().splitlines() if log.exists() else []
    if len(there) == 2:
        assert done == []
        return
    assert any("install docker.io" in line for line in done) == (not there)
    assert done.count("toolkit") == (1 if known else 2)
    assert done[-1] == "systemctl restart docker"
