"""What is said to a cluster's autoscaler, and what it answers.

Ray has two: version 1 beside a head that was started by hand, version 2 with `ray up` and KubeRay. Neither says how far
the cluster may grow, but it can be asked for something, and version 2 answers if no node of it could do that.
"""

import json
from collections.abc import Mapping

import ray.autoscaler.sdk
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client

__all__ = ["ask_for", "cannot_come", "let_go"]

ANSWER_TIMEOUT_S = 10


def ask_for(workers: int, resources: Mapping[str, float]) -> None:
    """Ask for a cluster that holds so many workers; Ray keeps one such request, even after its driver died."""
    ray.autoscaler.sdk.request_resources(bundles=[dict(resources)] * workers)


def let_go() -> None:
    """Take back what was asked for: nodes without work may go."""
    ray.autoscaler.sdk.request_resources(bundles=[])


def cannot_come(resources: Mapping[str, float]) -> bool:
    """Say whether the cluster has answered, after a worker was asked for, that no node of it can have room for one."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status(timeout_s=ANSWER_TIMEOUT_S))
    for constraint in reply.autoscaling_state.infeasible_cluster_resource_constraints:
        if any(dict(each.request.resources_bundle) == dict(resources) for each in constraint.resource_requests):
            return True
    # Version 1 where nobody configured it: it mirrors the nodes that are there, each as a type of its own.
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    types = status.get("autoscaler_report", {}).get("active_nodes", {})
    return bool(types) and all(name.startswith("node_") for name in types)
