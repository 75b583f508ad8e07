"""A KServe InferenceService with our own container, which speaks the Open Inference Protocol v2."""

from __future__ import annotations

from fuseline.deploy.plan import HTTP_PORT, Plan
from fuseline.deploy.pod import container, pod_fields, reasons, which_models
from fuseline.deploy.scaling import CPU_PERCENT
from fuseline.deploy.yamlfile import to_yaml


def inference_service(plan: Plan) -> str:
    served = container(plan, "kserve-container")
    served["ports"] = [{"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}]
    served["env"] = [{"name": "PROTOCOL", "value": "v2"}]
    fields = pod_fields(plan)
    del fields["enableServiceLinks"]  # KServe's own default; its older webhooks refuse the field
    data = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": plan.head() | {
            "annotations": {"serving.kserve.io/deploymentMode": "Standard", **which_models(plan)}
        },
        "spec": {
            "predictor": {
                "minReplicas": plan.replicas,
                "maxReplicas": plan.max_replicas,
                "scaleMetric": "cpu",
                "scaleTarget": CPU_PERCENT,
                "timeout": int(plan.server.deadline_ms / 1000) + 5,
                "labels": plan.selector,
                **fields,
                "containers": [served],
            }
        },
    }  # fmt: skip
    return to_yaml(
        data,
        "KServe instead of the plain manifests: it makes the Deployment, the Service, the route and the autoscaler. "
        "Apply serviceaccount.yaml first. deploymentMode Standard needs KServe 0.16; before that it was called "
        "RawDeployment. Knative mode refuses the preStop hook and some security fields.",
        "Storage: the packages lie in the image, so a pod starts without a download and what runs is what was "
        "verified when it was built. To keep them in a bucket or on a volume instead: add the environment variable "
        "STORAGE_URI (s3://bucket/models, pvc://claim/models) to this container, so that KServe's storage "
        "initializer copies them to /mnt/models before the start; set `command: [fuseline, serve]` with "
        f"/mnt/models/NAME.fuse, --host 0.0.0.0 and --port {HTTP_PORT} before the other args; and grant the "
        "ServiceAccount the bucket's credentials. The server checks each package's sha256 at its start in either case.",
        f"timeout {int(plan.server.deadline_ms / 1000) + 5} s: the server's own longest deadline and 5 s, so that "
        "the caller hears the server's answer and not the proxy's.",
        *reasons(plan),
    )
