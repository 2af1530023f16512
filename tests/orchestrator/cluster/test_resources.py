"""What a cluster offers to workers, counted node by node; see test_autoscaler.py for clusters that grow."""

from typing import Any

import pytest
import ray

from orchestrator.cluster import connection
from orchestrator.cluster import resources as cluster
from orchestrator.cluster.resources import Resources
from orchestrator.errors import ClusterError, UserError


def resources(cpus: float = 0, gpus: float = 0, share: float = 0, asked: int | None = None) -> Resources:
    return Resources(cpus=cpus, gpus=gpus, gpus_per_trial=share, asked=asked)


def nodes(monkeypatch: pytest.MonkeyPatch, *offers: dict[str, float], dead: dict[str, float] | None = None) -> None:
    up = [{"Alive": True, "Resources": offer} for offer in offers]
    gone = [{"Alive": False, "Resources": dead}] if dead else []
    monkeypatch.setattr(ray, "nodes", lambda: up + gone)


class TestWorkers:
    @pytest.mark.parametrize(
        ("given", "limit", "workers"),
        [
            (resources(cpus=8), None, 8),
            (resources(cpus=8), 3, 3),
            (resources(cpus=8), 100, 8),
            (resources(cpus=0), None, 1),
            (resources(cpus=64, gpus=2, share=1), None, 2),
            (resources(cpus=64, gpus=2, share=0.5), None, 4),
            (resources(cpus=64, gpus=2, share=0.4), None, 4),  # a share does not reach over two GPUs
            (resources(cpus=64, gpus=1, share=0.1), None, 10),
            (resources(cpus=64, gpus=1, share=1 / 3), None, 3),
            (resources(cpus=3, gpus=2, share=0.25), None, 3),
        ],
    )
    def test_as_many_as_fit(self, given: Resources, limit: int | None, workers: int) -> None:
        assert given.workers(limit) == workers

    def test_as_many_as_a_joined_cluster_was_asked_for(self) -> None:
        growing = resources(cpus=1, asked=4)
        assert growing.room == 1 and growing.workers() == 4
        assert growing.workers(2) == 2, "a stage with less to do"
        assert resources(cpus=16, asked=4).workers() == 16, "the limit is the stage's, or the search's"


class TestMeasure:
    def test_a_head_with_cores_alone_offers_no_gpu_worker_a_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes(monkeypatch, {"CPU": 64}, {"CPU": 2, "GPU": 1})
        assert cluster.measure(1).room == 1
        assert cluster.measure(0.25).room == 2
        assert cluster.measure(0).room == 66

    def test_gpus_may_differ_from_node_to_node(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes(monkeypatch, {"CPU": 0}, {"CPU": 2, "GPU": 8}, {"CPU": 96, "GPU": 1}, dead={"CPU": 8, "GPU": 8})
        assert cluster.measure(1).room == 3
        assert cluster.measure(1).gpus == 9

    def test_types_of_gpus_are_known_where_workers_have_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes(
            monkeypatch, {"CPU": 8}, {"CPU": 2, "GPU": 1, "accelerator_type:A10G": 1.0},
            dead={"CPU": 8, "GPU": 8, "accelerator_type:L4": 1.0},
        )  # fmt: skip
        assert cluster.measure(1).gpu_types == {"A10G"}
        assert cluster.measure(0).gpu_types == frozenset()


class TestFirstNode:
    """A joined cluster without room for a worker; the autoscaler's answers are given by hand here."""

    @pytest.fixture
    def said(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        said: list[Any] = []
        monkeypatch.setattr(cluster, "ask_for", lambda workers, each: said.append((workers, each)))
        monkeypatch.setattr(cluster, "cancel_request", lambda: said.append("let go"))
        monkeypatch.setattr(cluster, "POLL_INTERVAL_S", 0.01)
        monkeypatch.setattr(connection, "POLL_INTERVAL_S", 0.01)
        return said

    def test_is_waited_for(self, said: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        looks = iter(range(1000))
        monkeypatch.setattr(connection, "is_infeasible", lambda _: False)
        monkeypatch.setattr(
            ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4, "GPU": 1} if next(looks) > 8 else {}}]
        )
        given = connection._resources("auto", 0.5, 6)
        assert (given.room, given.workers(), given.device) == (2, 6, "cuda")
        assert said == [(1, {"CPU": 1, "GPU": 0.5}), "let go"]

    def test_that_cannot_come_is_refused(self, said: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        nodes(monkeypatch, {"CPU": 4})
        monkeypatch.setattr(connection, "is_infeasible", lambda _: True)
        with pytest.raises(UserError, match="--gpus-per-trial 1 needs a GPU, and Ray at auto has none"):
            connection._resources("auto", 1, None)
        assert said == [(1, {"CPU": 1, "GPU": 1}), "let go"]

    def test_that_does_not_come_in_time_ends_it(self, said: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        nodes(monkeypatch, {"CPU": 0})
        monkeypatch.setattr(connection, "is_infeasible", lambda _: False)
        monkeypatch.setattr(connection, "NODE_TIMEOUT_S", 0.1)
        with pytest.raises(ClusterError, match="no node with room for a worker"):
            connection._resources("auto", None, None)
        assert said[-1] == "let go"

    def test_is_not_asked_of_the_embedded_ray(self, said: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        nodes(monkeypatch, {"CPU": 4})
        with pytest.raises(UserError, match="has none and can start none"):
            connection._resources("local", 0.5, 3)
        assert said == []
        assert connection._resources("local", None, 3).workers() == 4


def test_room_that_is_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes(monkeypatch, {"CPU": 4})
    monkeypatch.setattr(cluster, "ask_for", lambda *_: pytest.fail("asked"))
    with resources(cpus=4).requested(4):
        pass
