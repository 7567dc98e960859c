"""The manifests of cluster/kuberay: valid to Kubernetes and KubeRay, closed to all others."""

import copy
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
from tests_support.cluster_files import CLUSTER, containers, pods, read_manifests
from tests_support.kuberay_schema import SPECS

KUBERNETES = "1.34"
MANIFESTS = list(read_manifests())
PODS = [
    pytest.param(pod, id=f"{manifest['kind']}-{pod['containers'][0]['name']}")
    for _, manifest in MANIFESTS
    for pod in pods(manifest)
]


def of_kind(kind: str) -> dict[str, dict]:
    """Return the objects of a kind by name."""
    found = [m for _, m in MANIFESTS if m["kind"] == kind]
    return {m["metadata"].get("name", "generated"): m for m in found}


@pytest.mark.parametrize(
    ("path", "manifest"),
    MANIFESTS,
    ids=[f"{p.stem}-{m['kind']}-{i}" for i, (p, m) in enumerate(MANIFESTS)],
)
def test_an_object_has_only_what_its_schema_knows(path: Path, manifest: dict) -> None:
    if manifest["apiVersion"] == "ray.io/v1":
        jsonschema.validate(manifest["spec"], SPECS[manifest["kind"]])
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_has_only_what_kubernetes_knows(pod: dict) -> None:
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    wrong = copy.deepcopy(manifest)
    wrong["spec"]["containers"][0]["securityContext"]["runAsNonroot"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="runAsNonroot"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_autoscalers_container_has_only_what_kubernetes_knows() -> None:
    """KubeRay puts these into a container of the head's pod, as they are."""
    (cluster,) = of_kind("RayCluster").values()
    options = cluster["spec"]["autoscalerOptions"]
    names = ("env", "envFrom", "resources", "securityContext", "volumeMounts")
    given = {name: options[name] for name in names if name in options}
    assert {"resources", "securityContext"} <= given.keys()
    container = {"name": "autoscaler", "image": "x", **given}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    kubernetes_validate.validate(
        pod | {"spec": {"containers": [container]}}, KUBERNETES, strict=True
    )
    container["resources"] = {"limits": {"memory": "512Mi"}, "request": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="request"):
        kubernetes_validate.validate(
            pod | {"spec": {"containers": [container]}}, KUBERNETES, strict=True
        )


@pytest.mark.parametrize("kind", SPECS)
def test_a_misspelt_field_of_ray_is_refused(kind: str) -> None:
    spec = next(iter(of_kind(kind).values()))["spec"] | {"rayVersions": "2.60.0"}
    with pytest.raises(jsonschema.ValidationError, match="rayVersions"):
        jsonschema.validate(spec, SPECS[kind])


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [
        ("RayCluster", "headGroupSpec", {"rayStartParams": {}}),
        ("RayCluster", "gcsFaultToleranceOptions", {"redisPassword": {"value": "x"}}),
        ("RayCluster", "managedBy", "somebody"),
        ("RayJob", "ttlSecondsAfterFinished", -1),
        ("RayJob", "backoffLimit", 2**31),
        ("RayJob", "preRunningDeadlineSeconds", 0),
        ("RayJob", "submitterPodTemplate", {"spec": {}}),
        ("RayJob", "deletionStrategy", {"onSuccess": {"policy": "DeleteSelf"}}),
        (
            "RayJob",
            "deletionStrategy",
            {
                "deletionRules": [
                    {
                        "policy": "DeleteSelf",
                        "condition": {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed"},
                    }
                ]
            },
        ),
    ],
)
def test_a_value_that_kuberay_refuses_is_refused(kind: str, field: str, wrong: object) -> None:
    spec = next(iter(of_kind(kind).values()))["spec"] | {field: wrong}
    with pytest.raises(jsonschema.ValidationError) as error:
        jsonschema.validate(spec, SPECS[kind])
    assert error.value.absolute_path[0] == field


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_fits_the_restricted_standard_that_the_namespace_enforces(pod: dict) -> None:
    labels = of_kind("Namespace")["unshift"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
    assert all(volume.keys() - {"name"} <= allowed for volume in pod.get("volumes", []))
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, container["name"]
        assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]


@pytest.mark.parametrize("pod", PODS)
def test_a_container_says_what_it_needs_and_may_not_take_more_memory(pod: dict) -> None:
    for container in containers(pod):
        resources = container["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"], container["name"]
        assert "cpu" in resources["requests"], container["name"]


@pytest.mark.parametrize("pod", [p for p in PODS if "submitter" not in p.id])
def test_a_server_is_watched(pod: dict) -> None:
    (container,) = pod["containers"]
    assert {"readinessProbe", "livenessProbe"} <= container.keys()
    probes = [probe for name, probe in container.items() if name.endswith("Probe")]
    assert all(probe.get("timeoutSeconds", 1) >= 5 for probe in probes)  # of a busy server


@pytest.mark.parametrize("pod", PODS)
def test_all_that_a_pod_names_is_there(pod: dict) -> None:
    secrets = {"unshift-secrets", "unshift"}  # ours, by a command; KubeRay's own, of the cluster
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    claims = of_kind("StatefulSet").values()
    templates = {c["metadata"]["name"] for s in claims for c in s["spec"]["volumeClaimTemplates"]}
    for volume in volumes.values():
        if "configMap" in volume:
            assert volume["configMap"]["name"] in of_kind("ConfigMap")
        if "secret" in volume:
            assert volume["secret"]["secretName"] in secrets
    for container in containers(pod):
        for mount in container.get("volumeMounts", []):
            assert mount["name"] in volumes.keys() | templates
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            assert reference is None or reference["name"] in secrets
    assert pod.get("serviceAccountName", "unshift") in of_kind("ServiceAccount")


def test_only_the_head_may_speak_to_kubernetes() -> None:
    """Its autoscaler starts and ends workers."""
    for _, manifest in MANIFESTS:
        for pod in pods(manifest):
            is_head = pod["containers"][0]["name"] == "ray-head"
            account = of_kind("ServiceAccount").get(pod.get("serviceAccountName", ""), {})
            mounts = pod.get(
                "automountServiceAccountToken", account.get("automountServiceAccountToken", True)
            )
            assert mounts is is_head, pod["containers"][0]["name"]


def test_the_cluster_asks_for_a_token_and_begins_without_workers() -> None:
    spec = of_kind("RayCluster")["unshift"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    (gpu,) = spec["workerGroupSpecs"]
    assert (gpu["replicas"], gpu["minReplicas"]) == (0, 0)
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    tolerated = {t["key"] for t in gpu["template"]["spec"]["tolerations"]}
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= tolerated


def test_kuberays_operator_takes_the_names() -> None:
    """It appends to them: `-serve-svc` to a cluster's, and more to a job's. A DNS label of 1035."""
    (cluster,) = of_kind("RayCluster")
    (job,) = [job["metadata"]["generateName"] for job in of_kind("RayJob").values()]
    for name, most in ((cluster, 53), (f"{job}x2x4z", 47)):  # Kubernetes generates five characters
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= most


def test_kuberays_operator_takes_the_cluster() -> None:
    """What it refuses by itself, by its validation.go on the way to 1.6 and after."""
    spec = of_kind("RayCluster")["unshift"]["spec"]
    release = tuple(int(part) for part in spec["rayVersion"].split(".")[:2])
    assert release >= (2, 52)  # from which on Ray knows tokens
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert not {"labels", "redis-username", "redis-password"} & group["rayStartParams"].keys()
        assert "resources" not in group  # they are in rayStartParams, or a container's limits
        assert group.get("minReplicas", 0) <= group.get("maxReplicas", 0)
        names = {variable["name"] for variable in group["template"]["spec"]["containers"][0]["env"]}
        assert not {"RAY_REDIS_ADDRESS", "REDIS_USERNAME", "RAY_enable_autoscaler_v2"} & names


def test_an_idle_worker_is_not_started_again() -> None:
    """The autoscaler ends Ray first, then the pod: one that restarts between stays, and costs."""
    spec = of_kind("RayCluster")["unshift"]["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        assert group["template"]["spec"]["restartPolicy"] == "Never", group["groupName"]


def test_kuberays_operator_takes_the_job() -> None:
    """On a cluster that is there already, and stays, it may not ask for all that its schema has."""
    spec = of_kind("RayJob")["generated"]["spec"]
    assert spec["clusterSelector"]["ray.io/cluster"]
    assert spec["shutdownAfterJobFinishes"] is False
    assert spec["submissionMode"] == "K8sJobMode"  # SidecarMode is refused
    assert not {"suspend", "backoffLimit", "ttlSecondsAfterFinished"} & spec.keys()


def admitted(labels: dict[str, str]) -> dict[int | str, list[dict]]:
    """Return who may reach a pod with such labels, by port; `any` for all ports."""
    found: dict[int | str, list[dict]] = {}
    for policy in of_kind("NetworkPolicy").values():
        chosen = policy["spec"]["podSelector"].get("matchLabels", {})
        if chosen.items() <= labels.items():
            for rule in policy["spec"].get("ingress", []):
                for port in rule.get("ports", [{"port": "any"}]):
                    found.setdefault(port["port"], []).extend(rule["from"])
    return found


def test_who_reaches_which_port() -> None:
    ray_pods = {"podSelector": {"matchLabels": {"ray.io/cluster": "unshift"}}}
    monitoring = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }
    ray_node = admitted({"ray.io/cluster": "unshift"})
    assert ray_node["any"] == [ray_pods]
    assert ray_node.keys() == {"any", 8265, 8080, 44217, 44227}
    # The metrics ports, which answer without a token.
    assert ray_node[8080] == ray_node[44217] == ray_node[44227] == [monitoring]
    operator, submitter = ray_node[8265]
    assert operator.keys() == {"namespaceSelector", "podSelector"}  # both, not either
    labels = of_kind("RayJob")["generated"]["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    assert submitter["podSelector"]["matchLabels"] == labels
    assert admitted({"app.kubernetes.io/name": "unshift-mlflow"}) == {5000: [ray_pods]}
    assert admitted({"app.kubernetes.io/name": "unshift-postgres"}).keys() == {5432}
    assert admitted({"app.kubernetes.io/name": "anything-else"}) == {}


def test_a_pod_without_a_policy_of_its_own_is_reached_by_nobody() -> None:
    deny = of_kind("NetworkPolicy")["default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_every_service_finds_its_pods() -> None:
    for service in of_kind("Service").values():
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        owners = [*of_kind("Deployment").values(), *of_kind("StatefulSet").values()]
        templates = [owner["spec"]["template"] for owner in owners]
        selector = service["spec"]["selector"]
        (chosen,) = [t for t in templates if selector.items() <= t["metadata"]["labels"].items()]
        named = {p["name"] for c in chosen["spec"]["containers"] for p in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


def test_all_is_in_one_namespace_and_the_job_finds_its_cluster() -> None:
    spaced = [m for _, m in MANIFESTS if m["kind"] != "Namespace"]
    assert {m["metadata"]["namespace"] for m in spaced} == {"unshift"}
    job = of_kind("RayJob")["generated"]["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": "unshift"}
    assert "unshift" in of_kind("RayCluster")
    for host in ("unshift-postgres/unshift", "unshift-mlflow:5000"):
        assert host in job["entrypoint"]
        assert host.split("/")[0].split(":")[0] in of_kind("Service")


def test_the_manifests_are_all_of_the_folder() -> None:
    kinds = {manifest["kind"] for _, manifest in MANIFESTS}
    assert len({path for path, _ in MANIFESTS}) == len(list((CLUSTER / "kuberay").iterdir()))
    assert {"RayCluster", "RayJob", "StatefulSet", "Deployment", "NetworkPolicy"} <= kinds
