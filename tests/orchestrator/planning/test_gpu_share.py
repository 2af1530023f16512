"""`--gpus-per-trial auto`: what is made of measured figures, and the measurement in real processes on a CPU."""

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from orchestrator.cluster.resources import Resources, _shares
from orchestrator.errors import UserError
from orchestrator.planning import gpu_share, shared_gpu
from orchestrator.planning.gpu_share import heaviest_settings, share_gpus, share_of, trials_that_fit
from orchestrator.stages.experts import ensure_experts
from orchestrator.stages.inputs import prepare_inputs
from orchestrator.state.gpu_figures import GpuFigures
from orchestrator.state.progress import Progress
from orchestrator.state.workdir import Workdir
from search_spaces import load
from tests.support.builders import sweep_settings
from tests.support.gpu_memory import GPU_MEMORY_ERRORS
from tests.support.losses import patience
from trainables.distillation.micro_batches import SPARE
from trainables.workers.footprint import Footprint, TrialProbe
from trainables.workers.workbench import TrialWork

GIB = 2**30
PAYS = {1: 1.0, 2: 0.6, 4: 0.4}


def footprint(trial: float, gpu: float) -> Footprint:
    return Footprint(trial_bytes=round(trial * GIB), gpu_bytes=round(gpu * GIB), gpu="A")


def measured(trial: float, gpu: float, seconds: dict[int, float] = PAYS, name: str = "A") -> GpuFigures:
    return GpuFigures(trial_bytes=round(trial * GIB), gpu_bytes=round(gpu * GIB), gpu=name, seconds=seconds)


class TestDecision:
    @pytest.mark.parametrize(
        ("trial", "gpu", "trials"), [(40, 80, 1), (30, 80, 2), (20, 80, 3), (5, 80, 12), (70, 80, 1), (0.5, 139, 222)]
    )
    def test_as_many_trials_fit_as_memory_less_the_reserve_has(self, trial: float, gpu: float, trials: int) -> None:
        assert trials_that_fit(footprint(trial, gpu)) == trials
        share = shared_gpu.share_of_one(trials)
        assert _shares(share) == trials and trials * share <= 1
        assert trials == 1 or trials * trial <= SPARE * gpu

    @pytest.mark.parametrize(
        ("seconds", "trials"),
        [
            ({1: 1.0, 2: 1.0}, 1),  # a trial that fills the GPU
            ({1: 1.0, 2: 0.6, 4: 0.58}, 2),
            ({1: 1.0, 2: 0.6, 4: 0.4}, 4),
            ({1: 1.0, 2: 0.6, 3: 0.5}, 3),
            ({1: 1.0, 2: 0.6}, 2),  # no memory for four
            ({1: 1.0}, 1),
        ],
    )
    def test_as_many_share_a_gpu_as_pay(self, seconds: dict[int, float], trials: int) -> None:
        assert _shares(share_of([measured(1, 80, seconds)])) == trials

    def test_the_type_of_gpu_that_takes_fewest_decides(self) -> None:
        assert share_of([measured(5, 80), measured(6, 16, {1: 1.0, 2: 0.6}, "B")]) == 0.5
        assert share_of([measured(5, 80), measured(1, 80, {1: 1.0, 2: 0.99}, "B")]) == 1

    def test_a_trial_larger_than_the_gpu_is_refused(self) -> None:
        with pytest.raises(UserError, match="a trial takes more memory than B has; set --memory-budget"):
            share_of([measured(5, 80), measured(17, 16, name="B")])

    def test_figures_are_read_as_they_were_recorded(self, tmp_path: Path) -> None:
        Progress(tmp_path).record_gpu("accelerator_type:A", measured(5, 80))
        assert Progress(tmp_path).gpus == {"accelerator_type:A": measured(5, 80)}


def test_the_setting_measured_takes_the_largest_steps_and_batch_of_the_space() -> None:
    space = load("ti_ranges")
    heaviest = heaviest_settings(space)
    for name in ("N", "batch_syn"):
        assert heaviest[name] == max(space.parameters[name].values)
    assert heaviest["M"] == space.resolve(space.first())["M"]


def test_of_a_study_the_heaviest_variant_is_measured() -> None:
    space = load("digits_ablation")
    points = [space.resolve(point) for point in space.points()]
    assert heaviest_settings(space)["N"] * heaviest_settings(space)["batch_syn"] == max(
        point["N"] * point["batch_syn"] for point in points
    )


@pytest.mark.slow
class TestMeasurement:
    """With declared GPUs, on which processes are placed as on real ones; the trials compute on the CPU."""

    @pytest.fixture(scope="class")
    def resources(self) -> Iterator[Resources]:
        ray.init(
            "local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8
        )
        yield Resources(cpus=4, gpus=2, gpus_per_trial=1)
        ray.shutdown()

    @pytest.fixture(scope="class")
    def work(self, resources: Resources, tmp_path_factory: pytest.TempPathFactory) -> TrialWork:
        settings = sweep_settings(workdir=Workdir(tmp_path_factory.mktemp("share")))
        settings = replace(settings, space=load("digits").override({"expert_count": "1"}))
        inputs = prepare_inputs(settings, Console(quiet=True))
        on_cpus = replace(resources, gpus_per_trial=0)
        ensure_experts(inputs, on_cpus, Console(quiet=True), patience())
        return inputs.trial_work(on_cpus, compiled=False)

    def share(self, resources: Resources, work: TrialWork, progress: Progress) -> tuple[Resources, str]:
        said = io.StringIO()
        shared = share_gpus(load("digits"), resources, work, progress, Console(file=said), patience())
        return shared, said.getvalue()

    def test_is_made_by_as_many_processes_on_one_gpu_and_recorded(
        self, resources: Resources, work: TrialWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes = tmp_path / "notes"

        class Noting(TrialProbe):
            """Runs real iterations, and tells times that do not depend on this machine."""

            def begin(self, work: TrialWork, own: Any) -> None:
                super().begin(work, own)
                self.share = work.device_share

            def seconds(self) -> float:
                assert super().seconds() > 0
                with notes.open("a") as file:
                    file.write(f"{self.share:g} {os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}\n")
                return {1.0: 1.0, 0.5: 1.2}[self.share]

        monkeypatch.setattr(gpu_share, "measure_footprint", lambda *_: footprint(5, 80))
        monkeypatch.setattr(shared_gpu, "TrialProbe", Noting)
        shared, said = self.share(resources, work, Progress(tmp_path))
        assert shared.gpus_per_trial == 0.5
        assert "an iteration 1 s with 1, 0.6 s with 2 at once: --gpus-per-trial 0.5" in said
        shares, gpus, processes = zip(*(line.split() for line in notes.read_text().splitlines()), strict=True)
        assert shares == ("1", "0.5", "0.5"), "a node has two cores for each GPU"
        assert gpus[1] == gpus[2] and len(set(processes)) == 3
        (figures,) = Progress(tmp_path).gpus.values()
        assert figures.seconds == {1: 1.0, 2: 0.6}
        again, said_again = self.share(resources, work, Progress(tmp_path))
        assert (again.gpus_per_trial, said_again) == (0.5, said)
        assert len(notes.read_text().splitlines()) == 3, "nothing is measured again"

    def test_without_memory_for_two_one_trial_has_the_gpu(
        self, resources: Resources, work: TrialWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        error = GPU_MEMORY_ERRORS["cuDNN's engines"]

        class Scarce(TrialProbe):
            def begin(self, work: TrialWork, own: Any) -> None:
                if work.device_share < 1:
                    raise error

            def seconds(self) -> float:
                return 1.0

        monkeypatch.setattr(gpu_share, "measure_footprint", lambda *_: footprint(5, 80))
        monkeypatch.setattr(shared_gpu, "TrialProbe", Scarce)
        assert self.share(resources, work, Progress(tmp_path))[0].gpus_per_trial == 1

    def test_without_memory_for_one_the_settings_are_refused(
        self, resources: Resources, work: TrialWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        error = GPU_MEMORY_ERRORS["the driver"]

        def fail(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(gpu_share, "measure_footprint", fail)
        with pytest.raises(UserError, match="a trial takes more memory than a GPU has; set --memory-budget"):
            self.share(resources, work, Progress(tmp_path))
