"""Ray clusters whose nodes are processes of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ray.cluster_utils import Cluster


@contextmanager
def ray_cluster(monkeypatch: pytest.MonkeyPatch, *, head_cores: int) -> Iterator[Cluster]:
    """A cluster of a head with so many cores; nodes may be added to it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cores, "object_store_memory": 10**8})
    try:
        yield cluster
    finally:
        cluster.shutdown()
