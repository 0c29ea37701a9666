"""
The Pod of a build: a name under which Kubernetes finds the logs (pure).

It is bound to the runner's Node, which is none, so nobody pulls its image or starts its
containers.  It is a mirror Pod, as kubelets make of what they run without having been
told by the API server: so it needs no service account.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from brokkr.agent.kinds import PODS, TASK_RUNS
from brokkr.local.build_runner.task_run import pod_name
from brokkr.work.model import Manifest

_NO_IMAGE: Final = "stand-in"
_PHASES: Final = {"True": "Succeeded", "False": "Failed"}


def render_pod(task_run: Manifest, *, node: str, steps: Iterable[str]) -> Manifest:
    """Render the Pod of a TaskRun."""
    metadata = task_run["metadata"]
    containers = [{"name": step, "image": _NO_IMAGE, "imagePullPolicy": "Never"} for step in steps]
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            "name": pod_name(metadata["name"]),
            "labels": {**metadata["labels"], "tekton.dev/taskRun": metadata["name"]},
            "annotations": {
                **metadata.get("annotations", {}),
                "kubernetes.io/config.mirror": metadata["uid"],
            },
            "ownerReferences": [
                {
                    "apiVersion": TASK_RUNS.api_version,
                    "kind": TASK_RUNS.kind,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            # There is nothing that would have to be waited for.
            "terminationGracePeriodSeconds": 0,
            "containers": containers,
        },
    }


def reflect(status: Manifest, *, task_run: Manifest, **_: datetime) -> Manifest:
    """Make the Pod's status say what its TaskRun's says."""
    reached = task_run["status"]
    return {
        **status,
        "phase": _PHASES.get(reached["conditions"][0]["status"], "Running"),
        "startTime": reached["startTime"],
        "containerStatuses": [_container(step) for step in reached["steps"]],
    }


def _container(step: Manifest) -> Manifest:
    is_running = "running" in step
    return {
        "name": step["container"],
        "image": _NO_IMAGE,
        "imageID": _NO_IMAGE,
        "restartCount": 0,
        "ready": is_running,
        "started": is_running,
        "state": {state: step[state] for state in ("running", "terminated") if state in step},
    }
