"""The workers' units of work on pretended CUDA come to the CPU's values, from files to files."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search_spaces.entry import Kind
from search_spaces.registry import names
from tests.support.experts import expert_identity
from tests.support.implementations import own
from tests.support.pretended_cuda import pretended_cuda
from tests.support.settings import distillation_config, expert_recipe
from trainables.baselines.coresets import grand
from trainables.config.arithmetic import IEEE
from trainables.config.protocol import Protocol
from trainables.data import datasets
from trainables.data.augmentation import FAMILIES
from trainables.evaluation.submission import recognise
from trainables.experts.store import TrajectoryStore
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator
from trainables.storage.checkpoints import checkpoint_place, read_checkpoint
from trainables.workers.baselines import BaselineMaker, BaselineWork
from trainables.workers.correlation import LOSSES, MeasureWork, RealSubset, measure_set
from trainables.workers.diagnostics import distances_of_experts, losses_of_trial
from trainables.workers.expert import ExpertActor, ExpertWork
from trainables.workers.final import images_of, train_and_test
from trainables.workers.footprint import measure_footprint
from trainables.workers.trial import DistillationTrial
from trainables.workers.workbench import TrialWork

ALL = tuple(FAMILIES)
CLASSES, IPC, EPOCHS = 3, 2, 3
NETWORK = ConvNet(channels=1, image_size=8, classes=CLASSES, depth=1, width=4)
RECIPE = expert_recipe(expert_batch_size=128, expert_momentum=0.5, expert_lr=0.02)
SETTINGS = dataclasses.asdict(
    distillation_config(
        ipc=IPC, N=2, M=1, T_minus=0, T=1, T_plus=2, interval=2, lr_pixel=5.0, lr_alpha=1e-6, alpha_init=0.05,
        batch_syn=4, batch_real=8, max_matching_loss=1e9, iterations=4,
    )
)  # fmt: skip
SET = torch.randn(CLASSES * IPC, 1, 8, 8, generator=generator("cuda workers")).numpy()
CLOSE = {"rel": 1e-4, "abs": 1e-5}


@dataclass(frozen=True)
class Files:
    """The inputs of a device's workers, and where they write."""

    dataset: Path
    root: Path
    device: str

    @property
    def store(self) -> TrajectoryStore:
        identity = replace(expert_identity(NETWORK, ALL), recipe=RECIPE)
        return TrajectoryStore(self.root / "experts", identity)

    def trials(self, **changed: Any) -> TrialWork:
        (self.root / "checkpoints").mkdir(exist_ok=True)
        values: dict[str, Any] = {
            "dataset": self.dataset, "store": self.store, "methods": own(Kind.METHOD),
            "checkpoints": str(self.root / "checkpoints"), "settings": SETTINGS, "experts": 2, "epochs": EPOCHS,
            "protocol": Protocol.challenge(3), "validation_networks": 2, "validation_every_iterations": 2, "seed": 0,
            "device": self.device, "compiled": False, "memory_budget_bytes": 1e9, "device_share": 0.5,
        }  # fmt: skip
        return TrialWork(**{**values, **changed})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits 0, 1 and 2, of which 320 train."""
    cache = tmp_path_factory.mktemp("prepared")
    return datasets.prepare("digits", cache=cache, validation_share=0.25, classes=CLASSES)


def train_experts(files: Files) -> list[Any]:
    """Train two experts for two epochs, then, as another actor would, for a third."""
    ends = []
    for epochs, known in ((EPOCHS - 1, []), (EPOCHS, [0, 1])):
        work = ExpertWork(
            dataset=files.dataset, store=files.store, epochs=epochs, device=files.device, kept=files.root / "kept"
        )
        actor = ExpertActor(work, 0.5 if files.device == "cuda" else 0.0)
        under_way = actor.begin([0, 1], known).under_way
        while under_way:
            progress = actor.train_epoch()
            under_way = progress.under_way
            files.store.record(progress.finished)
        ends.append(progress.epochs)
    trajectories = files.store.open([0, 1], EPOCHS)
    return [ends, *(trajectories.snapshot(expert, epoch) for expert in (0, 1) for epoch in range(EPOCHS + 1))]


@pytest.fixture(scope="module")
def cpu(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    files = Files(dataset, tmp_path_factory.mktemp("cpu"), "cpu")
    train_experts(files)
    return files


@pytest.fixture(scope="module")
def cuda(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    files = Files(dataset, tmp_path_factory.mktemp("cuda"), "cuda")
    with pretended_cuda():
        train_experts(files)
    return files


@pytest.fixture
def same(cpu: Files, cuda: Files) -> Callable[[Callable[[Files], Any]], None]:
    """Compute on both devices, and compare."""

    def compare(compute: Callable[[Files], Any]) -> None:
        expected = compute(cpu)
        with pretended_cuda():
            found = compute(cuda)
        assert plain(found) == pytest.approx(plain(expected), **CLOSE, nan_ok=True)
        assert len(plain(expected)) > 0

    return compare


def plain(value: Any) -> list[float]:
    """Return the numbers of a nested value in order; a tensor must lie on the CPU."""
    if isinstance(value, Tensor | np.ndarray):
        assert type(value) in (Tensor, np.ndarray)
        return [float(number) for number in value.reshape(-1).tolist()]
    if isinstance(value, dict):
        return plain(list(value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for part in value for number in plain(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_experts_are_trained_and_extended(same: Callable[..., None]) -> None:
    same(lambda files: train_experts(replace(files, root=files.root / "again")))


def test_a_group_of_experts_is_sized_by_trying(cuda: Files) -> None:
    with pretended_cuda():
        actor = ExpertActor(
            ExpertWork(dataset=cuda.dataset, store=cuda.store, epochs=EPOCHS, device="cuda", kept=cuda.root / "kept"),
            gpu_share=0.5,
        )
        assert 1 <= actor.at_once() <= 16


class Alone(DistillationTrial):
    """A trial without Ray Tune."""

    def __init__(self, work: TrialWork, config: dict[str, Any]) -> None:
        self._work = work
        super().__init__(config)

    def _setup_logdir(self) -> None:
        self._logdir = self._work.checkpoints  # type: ignore[assignment]

    def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
        super().setup(config, self._work)


def tensors_at(place: str) -> list[Tensor]:
    """Return the tensors of a checkpoint by the order of their names; the file's order is any."""
    state = read_checkpoint(place)
    assert state is not None
    return [value for _, value in sorted(state.items()) if isinstance(value, Tensor)]


TRIALS: dict[str, dict[str, Any]] = {
    "trajectory": {},
    "found α": {"alpha_init": "auto"},
    "soft labels and the average": {"label_mode": "soft", "lr_label": 1.0, "ema_decay": 0.9},
    "unrolled from noise": {"gradient": "unrolled", "initialization": "noise"},
    "distribution": {"method": "distribution"},
    "gradient": {"method": "gradient", "outer_loop": 3, "inner_loop": 1},
}
FIGURES = ("iteration", "validation_accuracy", "image_displacement", "skip_rate")


@pytest.mark.parametrize("case", TRIALS)
def test_two_rungs_then_another_trial_in_the_same_actor_and_one_resumed(case: str, same: Callable[..., None]) -> None:
    """A trial ends its first rung, is taken up by another process, and ends; its actor goes on with a second trial."""
    numbers = {name: number for number, name in enumerate(TRIALS)}
    first = {**TRIALS[case], "trial_number": 2 * numbers[case]}
    second = {**first, "trial_number": first["trial_number"] + 1, "lr_pixel": 7.0}

    def run(files: Files) -> list[Any]:
        work = files.trials()
        reports = [Alone(work, first).step()]
        resumed = Alone(work, first)
        reports += [resumed.step(), resumed.step()]  # the report of the first rung is repeated
        assert resumed.reset_config(second)
        reports += [resumed.step(), resumed.step()]
        assert [report.get("failed") for report in reports] == [None] * 5
        places = [checkpoint_place(work.checkpoints, trial["trial_number"]) for trial in (first, second)]
        return [[report[name] for report in reports for name in FIGURES], *(tensors_at(place) for place in places)]

    same(run)


def test_the_precisions_of_a_gpu_are_taken(cuda: Files) -> None:
    """TF32 has no CPU to compare with, and here rounds as fp32 does."""
    tensors = []
    for precision in ("fp32", "tf32"):
        (cuda.root / precision).mkdir()
        work = cuda.trials(settings={**SETTINGS, "precision": precision}, checkpoints=str(cuda.root / precision))
        with pretended_cuda():
            assert "failed" not in Alone(work, {"trial_number": 0}).step()
        tensors.append(tensors_at(checkpoint_place(work.checkpoints, 0)))
    for one, other in zip(*tensors, strict=True):
        assert torch.equal(one, other)


def test_the_footprint_is_measured(cuda: Files) -> None:
    with pretended_cuda(total_bytes=1000, free_bytes=900, peak_bytes=50):
        footprint = measure_footprint(cuda.trials(), {})
    assert (footprint.trial_bytes, footprint.gpu_bytes, footprint.gpu) == (150, 1000, "pretended GPU")


def test_diagnostics(same: Callable[..., None]) -> None:
    def run(files: Files) -> list[Any]:
        losses = losses_of_trial(files.trials(), {}, None, 2, 2, 0)
        assert losses is not None
        return [losses.alpha, losses.losses, *distances_of_experts(files.trials(), 2)]

    same(run)


@pytest.mark.parametrize("source", [RealSubset(2, 0), SET], ids=["real images", "a set"])
def test_the_correlation_of_losses(source: Any, same: Callable[..., None]) -> None:
    def run(files: Files) -> list[Any]:
        work = MeasureWork(
            dataset=files.dataset, store=files.store, experts=2, epochs=EPOCHS, settings=SETTINGS, losses=LOSSES,
            split="test", protocol=Protocol.challenge(2), networks=2, seed=0, device=files.device, device_share=0.5,
            kept=files.root / "kept",
        )  # fmt: skip
        return list(measure_set(work, source))

    same(run)


@pytest.mark.parametrize("regime", ["hard", "soft", "soft_kd"])
def test_finals(regime: str, same: Callable[..., None]) -> None:
    teacher = NETWORK.initial(generator("teacher")).numpy()

    def run(files: Files) -> list[Any]:
        metrics, theta = train_and_test(
            files.dataset, SET, NETWORK, Protocol.regime(regime, epochs=2), files.store.identity.augmentation, 0,
            files.device, IEEE, regime, teacher,
        )  # fmt: skip
        return [metrics.confusion, theta]

    same(run)


def test_finals_on_all_training_images(same: Callable[..., None]) -> None:
    def run(files: Files) -> list[Any]:
        augmentation = files.store.identity.augmentation
        metrics, theta = train_and_test(
            files.dataset, None, NETWORK, Protocol.challenge(1), augmentation, 0, files.device, IEEE
        )
        return [metrics.confusion, theta]

    same(run)


def test_the_check_of_a_sets_order(same: Callable[..., None]) -> None:
    def run(files: Files) -> list[Any]:
        loaded = datasets.load(files.dataset)
        small = replace(loaded, splits={name: part(split) for name, split in loaded.splits.items()})
        recognition = recognise(torch.tensor(SET), small, torch.device(files.device))
        return [recognition.logits.isfinite().float(), recognition.accuracy]

    def part(split: datasets.Split) -> datasets.Split:
        return datasets.Split(split.images[:40], split.labels[:40], "a part")

    same(run)


@pytest.fixture(scope="module")
def makers(cpu: Files, cuda: Files) -> dict[str, BaselineMaker]:
    def make(files: Files) -> BaselineMaker:
        work = BaselineWork(
            dataset=files.dataset, coresets=own(Kind.CORESET), others=own(Kind.BASELINE), network=NETWORK,
            augmentation=files.store.identity.augmentation, kept=files.root / "kept",
            full_data_protocol=Protocol.challenge(2), validation_protocol=Protocol.challenge(1), validation_networks=1,
            squeeze_epochs=1, recover_iterations=3, device=files.device, arithmetic=IEEE,
        )  # fmt: skip
        return BaselineMaker(work, 0)

    return {files.device: make(files) for files in (cpu, cuda)}


@pytest.mark.parametrize("method", names(Kind.CORESET, Kind.BASELINE))
def test_baselines(method: str, makers: dict[str, BaselineMaker], same: Callable[..., None]) -> None:
    def run(files: Files) -> list[Any]:
        place = makers[files.device].make(method, 1, str(files.root / f"{method}.safetensors"))
        return [images_of(place, datasets.load(files.dataset))]

    same(run)


def test_the_teacher_of_all_sets(makers: dict[str, BaselineMaker], same: Callable[..., None]) -> None:
    same(lambda files: [makers[files.device].teacher()])


def test_exact_gradient_norms(makers: dict[str, BaselineMaker], same: Callable[..., None]) -> None:
    def run(files: Files) -> list[Any]:
        evidence = makers[files.device]._materials.evidence
        return [grand.select(evidence, 1, 0, form="exact", runs=1, epochs=1)]

    same(run)
