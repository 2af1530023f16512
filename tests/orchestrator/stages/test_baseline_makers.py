"""The worker that makes baselines, in a real Ray of one core: it is lost, and it lets go of its core."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

import orchestrator.stages.baselines
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import Task, run_tasks
from orchestrator.cluster.worker_code import remote_task
from orchestrator.results.entries import ComparedSet
from orchestrator.stages.baselines import Baselines, Made
from orchestrator.stages.inputs import prepare_inputs
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings
from tests.support.losses import patience
from trainables.workers.baselines import BaselineMaker

pytestmark = pytest.mark.slow

NAMES = ["herding", "moderate", "k_center"]
SETS = [ComparedSet(method, 1) for method in NAMES]


@pytest.fixture(scope="module")
def resources() -> Iterator[Resources]:
    """A Ray of one core: whatever holds it lets nothing else run."""
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield Resources(cpus=1, gpus=0, gpus_per_trial=0)
    ray.shutdown()


def test_a_worker_that_is_lost_is_replaced_and_makes_the_rest(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"

    class Dies(BaselineMaker):
        """Notes what it makes, and ends its process the first time that it is to make the second set."""

        def make(self, method: str, ipc: int, place: str) -> str:
            again = notes.exists() and method in notes.read_text().split()
            with notes.open("a") as file:
                file.write(f"{method}\n")
            if method == "moderate" and not again:
                os._exit(1)
            return place

    monkeypatch.setattr(orchestrator.stages.baselines, "BaselineMaker", Dies)
    said = io.StringIO()
    inputs = prepare_inputs(sweep_settings(workdir=Workdir(tmp_path)), Console(file=said))
    train: Any = remote_task(lambda images: f"trained on {images}", resources)
    made = {wanted: Made(0, wanted) for wanted in SETS}
    tasks = Baselines(inputs, resources, SETS, teacher=False).tasks()
    tasks |= {wanted: Task("network", train.remote, (made[wanted],)) for wanted in SETS}
    results: dict[Any, Any] = {}
    run_tasks(tasks, resources, patience(Console(file=said)), results.__setitem__)
    for wanted in SETS:
        place = f"{inputs.settings.places.checkpoints}/baselines/{wanted.name}-0.safetensors"
        assert results[made[wanted]] == place
        assert results[wanted] == f"trained on {place}"
    # The process may end before Ray has sent the first set's result; then that set is the one that is lost.
    made_in_order = notes.read_text().split()
    assert made_in_order in ([*NAMES[:2], *NAMES[1:]], [*NAMES[:2], *NAMES])
    lost = NAMES[len(made_in_order) == 4]
    assert f"The process of the set {lost}-1 was lost: it was killed, or it crashed;" in said.getvalue()
