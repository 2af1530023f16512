"""Requests to a cluster's autoscaler, and its answers.

Ray has two autoscalers: version 1 with a head that was started by hand, version 2 with `ray up` and KubeRay. Neither
reports how far the cluster may grow. Both accept a request, and version 2 reports a request that no node type can
satisfy.
"""

import json
from collections.abc import Mapping

import ray.autoscaler.sdk
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client

__all__ = ["ask_for", "cancel_request", "is_infeasible"]

ANSWER_TIMEOUT_S = 10


def ask_for(workers: int, resources: Mapping[str, float]) -> None:
    """Request a cluster with room for so many workers; Ray keeps one such request, even after its driver has died.

    Args:
        workers: Number of workers.
        resources: Resources of one worker, by Ray's names.
    """
    ray.autoscaler.sdk.request_resources(bundles=[dict(resources)] * workers)


def cancel_request() -> None:
    """Cancel the request: idle nodes may be removed."""
    ray.autoscaler.sdk.request_resources(bundles=[])


def is_infeasible(resources: Mapping[str, float]) -> bool:
    """Return whether the cluster has reported that none of its node types has room for a requested worker.

    Args:
        resources: Resources of one worker, as requested.
    """
    reply = GetClusterStatusReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status(timeout_s=ANSWER_TIMEOUT_S))
    for constraint in reply.autoscaling_state.infeasible_cluster_resource_constraints:
        if any(dict(bundle.request.resources_bundle) == dict(resources) for bundle in constraint.resource_requests):
            return True
    # An unconfigured autoscaler of version 1 reports every running node as a node type of its own.
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    types = status.get("autoscaler_report", {}).get("active_nodes", {})
    return bool(types) and all(name.startswith("node_") for name in types)
