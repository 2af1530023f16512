"""How many workers run at once: as cores and memory were granted, and never more than fit."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning import plan as plan_module
from orchestrator.planning import work
from orchestrator.planning.plan import make_plan
from orchestrator.planning.workers import RESERVED_BYTES, USED_SHARE, workers_here
from orchestrator.stages import diagnostics
from search_spaces import load
from tests.support.builders import sweep_settings
from trainables.config.protocol import Protocol
from trainables.distillation import micro_batches
from trainables.machine import Machine

GIB = 2**30


def machine(cores: int, free_gib: float) -> Machine:
    return Machine(root=Path("/nowhere"), environment={}, allowed_cores=cores, free_bytes=int(free_gib * GIB))


@pytest.mark.parametrize(
    ("settings", "cores", "free_gib", "count"),
    [
        ({}, 4, 100, 4),
        ({}, 64, 9, 7),  # (.9 · 9 GiB less what Ray takes) / 1 GiB
        ({}, 64, 0.1, 1),
        ({"concurrent": 3}, 64, 100, 3),
        ({"concurrent": 30}, 4, 100, 4),
        ({"cpus": 1}, 64, 100, 1),
        ({"cpus": 8}, 4, 100, 8),
        ({"cpus": 8}, 4, 4, 2),
    ],
)
def test_the_tightest_limit_counts(settings: dict[str, Any], cores: int, free_gib: float, count: int) -> None:
    workers = workers_here(sweep_settings(**settings), GIB, machine(cores, free_gib))
    assert workers.count == count
    fitting = max(1, int((USED_SHARE * free_gib * GIB - RESERVED_BYTES) / GIB))
    assert f"memory for {fitting} of 1.0 GiB each" in workers.why and str(workers).startswith(f"{count}: ")
    assert ("--cpus" in workers.why) == ("cpus" in settings)


def test_a_worker_takes_its_libraries_and_what_it_computes() -> None:
    digits, wide = (
        make_plan(sweep_settings(space=load("digits").override({"net_width": width}))).worker_bytes
        for width in (32, 512)
    )
    assert plan_module.PROCESS_BYTES < digits < 2 * plan_module.PROCESS_BYTES < wide
    large = load("digits").override({"ipc": 50, "batch_syn": 500})  # the graph of a step takes most
    budget = make_plan(sweep_settings(space=large, memory_budget_bytes=2.0**20)).worker_bytes
    assert budget < make_plan(sweep_settings(space=large)).worker_bytes


def test_the_plan_counts_with_the_workers_own_numbers() -> None:
    """The plan loads no torch, so it repeats them."""
    assert plan_module.FASTEST_GRAPH_BYTES == micro_batches.CPU_BYTES
    assert plan_module.CPU_GRAPH_FACTOR == micro_batches.CPU_GRAPH_FACTOR
    assert plan_module.GPU_GRAPH_FACTOR == micro_batches.GPU_GRAPH_FACTOR
    assert Protocol.challenge(1).batch_size == work.BATCH
    assert diagnostics.EXPERTS * diagnostics.STARTS == work.DIAGNOSED
