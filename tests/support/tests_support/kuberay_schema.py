"""What KubeRay's RayCluster and RayJob may hold, as JSON schemas: the fields of KubeRay 1.6.

Compared field by field with github.com/ray-project/kuberay: the names with the API reference of
release 1.6.2 (commit 0a9eabde561a); types, limits and what is required with two of its CRDs, of
RayCluster on the way to 1.6 (017710c025a8) and of RayCronJob on the way to 1.7 (034971da0525),
whose template is a RayJob. The CRDs of a release were not at hand.

Not a copy of them: they repeat Kubernetes' own schema wherever a pod stands, 900 KB in all. Here a
pod is `POD`, whose spec the test gives to Kubernetes' schema instead. Unknown fields are refused,
as `kubectl apply` does; so is what the operator or Kubernetes would only refuse later: pods without
containers, counts below 0, deadlines of 0, unknown submission modes and types of Service.
"""

from typing import Any

MOST = 2**31 - 1  # every whole number there has 32 bits
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0, "maximum": MOST}
DEADLINE = {"type": "integer", "minimum": 1, "maximum": MOST}
BOOLEAN = {"type": "boolean"}
STRING = {"type": "string"}
MANAGER = {"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


POD = _closed(
    ["spec"],
    metadata=_closed(
        [],
        annotations=STRINGS,
        finalizers={"type": "array", "items": STRING},
        labels=STRINGS,
        name=STRING,
        namespace=STRING,
    ),
    spec={"type": "object", "required": ["containers"]},
)
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
_CREDENTIAL = _closed([], value=STRING, valueFrom={"type": "object"})
_REDIS = _closed(
    ["redisAddress"],
    externalStorageNamespace=STRING,
    redisAddress=STRING,
    redisPassword=_CREDENTIAL,
    redisUsername=_CREDENTIAL,
)
_HEAD = _closed(
    ["template"],
    enableIngress=BOOLEAN,
    headService={"type": "object"},
    labels=STRINGS,
    rayStartParams=STRINGS,
    resources=STRINGS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    template=POD,
)
_WORKERS = _closed(
    ["groupName", "maxReplicas", "minReplicas", "template"],
    groupName=STRING,
    idleTimeoutSeconds=COUNT,
    labels=STRINGS,
    maxReplicas=COUNT,
    minReplicas=COUNT,
    numOfHosts=COUNT,
    rayStartParams=STRINGS,
    replicas=COUNT,
    resources=STRINGS,
    scaleStrategy=_closed([], workersToDelete={"type": "array", "items": STRING}),
    suspend=BOOLEAN,
    template=POD,
)
RAY_CLUSTER_SPEC = _closed(
    ["headGroupSpec"],
    authOptions=_closed(
        [], enableK8sTokenAuth=BOOLEAN, mode={"enum": ["disabled", "token"]}, secretName=STRING
    ),
    autoscalerOptions=_AUTOSCALER,
    enableInTreeAutoscaling=BOOLEAN,
    gcsFaultToleranceOptions=_REDIS,
    headGroupSpec=_HEAD,
    headServiceAnnotations=STRINGS,
    managedBy=MANAGER,
    rayVersion=STRING,
    suspend=BOOLEAN,
    upgradeStrategy=_closed([], type={"enum": ["Recreate", "None"]}),
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
_DELETED = {"enum": ["DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"]}
_WHEN = {
    "oneOf": [
        _closed(["jobStatus"], jobStatus={"enum": ["SUCCEEDED", "FAILED"]}, ttlSeconds=COUNT),
        _closed(["jobDeploymentStatus"], jobDeploymentStatus={"const": "Failed"}, ttlSeconds=COUNT),
    ]
}
_RULES = {
    "type": "array",
    "minItems": 1,
    "items": _closed(["condition", "policy"], condition=_WHEN, policy=_DELETED),
}
_POLICY = _closed([], policy=_DELETED)
RAY_JOB_SPEC = _closed(
    [],
    activeDeadlineSeconds=DEADLINE,
    backoffLimit=COUNT,
    clusterSelector=STRINGS,
    deletionStrategy={
        "oneOf": [
            _closed(["onFailure", "onSuccess"], onFailure=_POLICY, onSuccess=_POLICY),
            _closed(["deletionRules"], deletionRules=_RULES),
        ]
    },
    entrypoint=STRING,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=STRING,
    jobId=STRING,
    managedBy=MANAGER,
    metadata=STRINGS,
    preRunningDeadlineSeconds=DEADLINE,
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
