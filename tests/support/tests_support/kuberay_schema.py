"""What KubeRay's RayCluster and RayJob may hold, as JSON schemas.

Written from the field lists of KubeRay's API reference and its release notes (1.5.1: authOptions).
Not a copy of its CRDs, which repeat Kubernetes' own schema wherever a pod stands, 700 KB in all:
here a pod is `POD`, which the test gives to Kubernetes' schema instead. Unknown fields are
refused, as `kubectl apply` does.
"""

from typing import Any

POD = {"type": "object", "required": ["spec"]}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
BOOLEAN = {"type": "boolean"}
STRING = {"type": "string"}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


_AUTOSCALER = _closed(
    [],
    env={"type": "array"},
    envFrom={"type": "array"},
    idleTimeoutSeconds=COUNT,
    image=STRING,
    imagePullPolicy=STRING,
    resources={"type": "object"},
    securityContext={"type": "object"},
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    volumeMounts={"type": "array"},
)
_HEAD = _closed(
    ["rayStartParams", "template"],
    enableIngress=BOOLEAN,
    headService={"type": "object"},
    rayStartParams=STRINGS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    template=POD,
)
_WORKERS = _closed(
    ["groupName", "maxReplicas", "minReplicas", "rayStartParams", "template"],
    groupName=STRING,
    idleTimeoutSeconds=COUNT,
    maxReplicas=COUNT,
    minReplicas=COUNT,
    numOfHosts=COUNT,
    rayStartParams=STRINGS,
    replicas=COUNT,
    scaleStrategy={"type": "object"},
    suspend=BOOLEAN,
    template=POD,
)
RAY_CLUSTER_SPEC = _closed(
    ["headGroupSpec"],
    authOptions=_closed([], mode={"enum": ["disabled", "token"]}),
    autoscalerOptions=_AUTOSCALER,
    enableInTreeAutoscaling=BOOLEAN,
    gcsFaultToleranceOptions={"type": "object"},
    headGroupSpec=_HEAD,
    headServiceAnnotations=STRINGS,
    managedBy=STRING,
    rayVersion=STRING,
    suspend=BOOLEAN,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
RAY_JOB_SPEC = _closed(
    ["entrypoint"],
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    clusterSelector=STRINGS,
    deletionStrategy={"type": "object"},
    entrypoint=STRING,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=STRING,
    jobId=STRING,
    managedBy=STRING,
    metadata=STRINGS,
    rayClusterSpec=RAY_CLUSTER_SPEC,
    runtimeEnvYAML=STRING,
    shutdownAfterJobFinishes=BOOLEAN,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterConfig=_closed([], backoffLimit=COUNT),
    submitterPodTemplate=POD,
    suspend=BOOLEAN,
    ttlSecondsAfterFinished=COUNT,
)
SPECS = {"RayCluster": RAY_CLUSTER_SPEC, "RayJob": RAY_JOB_SPEC}
