"""Trajectory diagnostics: distances in closed form; losses by hand in float64, and those of the distillation itself."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.entry import Kind
from tests.support.experts import expert_identity
from tests.support.implementations import own
from tests.support.references import module_of, relative_error, vector_of
from tests.support.settings import distillation_config
from trainables.config.protocol import Protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.data.labels import default_order_labels
from trainables.distillation.diagnostics import matching_losses, parameter_distances
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Matcher
from trainables.distillation.trajectory import Distiller
from trainables.experts.store import Trajectories, TrajectoryStore
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator
from trainables.storage.checkpoints import checkpoint_place, write_checkpoint
from trainables.workers.diagnostics import distances_of_experts, losses_of_trial
from trainables.workers.workbench import TrialWork, Workbench

SETTINGS = {
    "ipc": 2, "N": 5, "M": 2, "T_minus": 1, "T": 2, "T_plus": 3, "interval": 2, "lr_pixel": 50.0, "lr_alpha": 1e-3,
    "alpha_init": 0.05, "batch_syn": 8, "iterations": 4,
}  # fmt: skip
SOFT = {"label_mode": "soft", "lr_label": 20.0}


def trajectories_of(*experts: Sequence[Tensor]) -> Trajectories:
    """Experts from lists of snapshots."""
    return Trajectories([[theta.float().numpy() for theta in expert] for expert in experts])


@pytest.fixture
def build(small_network: ConvNet, trajectories: Trajectories) -> Callable[..., Distiller]:
    """A distillation of random images, all in float64."""

    def make(
        *,
        families: tuple[str, ...] = (),
        seed: int = 0,
        alpha: float | None = None,
        matched: Trajectories = trajectories,
        micro_batch: int | None = None,
        **changed: Any,
    ) -> Distiller:
        config = distillation_config(**{**SETTINGS, **changed})
        draws = generator("diagnostics", "tests")
        labels = default_order_labels(config.ipc, 10)
        if config.label_mode == "soft":
            labels = 3 * F.one_hot(labels, 10) + torch.randn(len(labels), 10, generator=draws)
        distiller = Distiller(
            config,
            matcher=Matcher(InnerStep(small_network, micro_batch=micro_batch), Augmentation(families=families)),
            trajectories=matched,
            images=torch.randn(len(labels), 1, 8, 8, generator=draws, dtype=torch.float64),
            labels=labels,
            seed=seed,
        )
        if alpha is not None:
            distiller.load_state_dict({**distiller.state_dict(), "alpha": alpha})
        return distiller

    return make


class TestDistances:
    def test_a_straight_line_at_constant_speed(self) -> None:
        draws = generator("diagnostics", "line")
        # Whole numbers, so that float32 snapshots are exact.
        start, direction = (torch.randint(-50, 50, (1000,), generator=draws).double() for _ in range(2))
        line = [start + epoch * direction for epoch in range(6)]
        steps, totals = parameter_distances(trajectories_of(line, [2 * theta for theta in line]), 5)
        length = math.sqrt(float((direction**2).sum()))
        assert steps.dtype == totals.dtype == torch.float64
        torch.testing.assert_close(steps, torch.tensor([[length, 2 * length]] * 5, dtype=torch.float64))
        expected = torch.tensor([[epoch * length, 2 * epoch * length] for epoch in range(1, 6)], dtype=torch.float64)
        torch.testing.assert_close(totals, expected)

    def test_every_epoch_along_an_axis_of_its_own(self) -> None:
        stairs = [torch.tensor([3.0] * epoch + [0.0] * (4 - epoch)) for epoch in range(5)]
        steps, totals = parameter_distances(trajectories_of(stairs), 4)
        torch.testing.assert_close(steps[:, 0], torch.full((4,), 3.0, dtype=torch.float64))
        expected = [3 * math.sqrt(epoch) for epoch in range(1, 5)]
        torch.testing.assert_close(totals[:, 0], torch.tensor(expected, dtype=torch.float64))

    def test_only_the_epochs_that_are_asked_for(self) -> None:
        out_and_back = [torch.tensor([float(place)]) for place in (0, 1, 3, 0)]
        steps, totals = parameter_distances(trajectories_of(out_and_back), 2)
        assert (steps[:, 0].tolist(), totals[:, 0].tolist()) == ([1, 2], [1, 3])
        assert parameter_distances(trajectories_of(out_and_back), 3)[1][:, 0].tolist() == [1, 3, 0]


class TestLosses:
    def test_without_inner_training_the_loss_is_one(
        self, build: Callable[..., Distiller], trajectories: Trajectories
    ) -> None:
        losses = matching_losses(build(alpha=0.0), trajectories, range(5), seed=0)
        assert losses.dtype == torch.float64
        assert torch.equal(losses, torch.ones(5, len(trajectories), dtype=torch.float64))

    @pytest.mark.parametrize("alpha", [0.05, -0.02])
    @pytest.mark.parametrize("soft", [{}, SOFT], ids=["hard", "soft"])
    def test_one_step_of_gradient_descent_by_hand(
        self,
        build: Callable[..., Distiller],
        trajectories: Trajectories,
        small_network: ConvNet,
        soft: Any,
        alpha: float,
    ) -> None:
        distiller = build(N=1, batch_syn=20, alpha=alpha, **soft)
        if soft:  # as learned, not as they began
            distiller.load_state_dict({**distiller.state_dict(), "labels": distiller.labels.flip(0)})
        losses = matching_losses(distiller, trajectories, [0, 3, 4], seed=0)
        for row, start in enumerate([0, 3, 4]):
            for expert in range(len(trajectories)):
                theta, target = (trajectories.snapshot(expert, epoch).double() for epoch in (start, start + 2))
                module = module_of(small_network, theta)
                labels = F.softmax(distiller.labels, dim=1) if soft else distiller.labels
                F.cross_entropy(module(distiller.images), labels).backward()
                gradient = vector_of_gradients(module)
                expected = (theta - alpha * gradient - target).square().sum() / (theta - target).square().sum()
                assert relative_error(losses[row, expert], expected) < 1e-12

    def test_a_set_that_trains_along_the_expert_has_loss_zero(
        self, build: Callable[..., Distiller], small_network: ConvNet, trajectories: Trajectories
    ) -> None:
        """An expert made of N = 3 plain steps on the set itself, a third of them an epoch: training repeats it."""
        theta = trajectories.snapshot(0, 0)
        images = build().images
        snapshots = [theta]
        for _ in range(3):
            module = module_of(small_network, snapshots[-1].double())
            F.cross_entropy(module(images), default_order_labels(2, 10)).backward()
            snapshots.append((vector_of(module) - 0.05 * vector_of_gradients(module)).float())
        expert = trajectories_of(snapshots)
        distiller = build(N=3, M=3, batch_syn=20)
        assert matching_losses(distiller, expert, [0], seed=0).item() < 1e-9  # snapshots are float32
        # Half as fast it gets about half of the way, and (1/2)² is left.
        halfway = build(N=3, M=3, batch_syn=20, alpha=0.025)
        assert matching_losses(halfway, expert, [0], seed=0).item() == pytest.approx(0.25, abs=0.02)

    @pytest.mark.parametrize("options", [{}, SOFT, {"families": tuple(FAMILIES)}, {"micro_batch": 3}, {"alpha": -0.01}])
    def test_it_is_the_loss_that_the_distillation_itself_has(
        self, build: Callable[..., Distiller], trajectories: Trajectories, options: dict[str, Any]
    ) -> None:
        """Ragged chunks, augmentations and all: an iteration under the same seed from the same start."""
        losses = matching_losses(build(**options), trajectories, range(5), seed=9)
        for start in range(5):
            only = {"T_minus": start, "T": start + 1, "T_plus": start + 1}
            running = build(seed=9, lr_pixel=1e-300, lr_alpha=0.0, **{**options, "lr_label": 0.0}, **only)
            for _ in range(len(trajectories)):
                done = running.step()
                assert losses[start, done.expert] == done.loss

    def test_of_a_moving_average_it_is_the_average_that_is_measured(
        self, build: Callable[..., Distiller], trajectories: Trajectories
    ) -> None:
        distiller = build(ema_decay=0.5)
        before = matching_losses(distiller, trajectories, [0], seed=0)
        distiller.load_state_dict({**distiller.state_dict(), "images": torch.zeros_like(distiller.images)})
        assert torch.equal(matching_losses(distiller, trajectories, [0], seed=0), before)
        distiller.load_state_dict({**distiller.state_dict(), "ema": torch.zeros_like(distiller.images)})
        assert not torch.equal(matching_losses(distiller, trajectories, [0], seed=0), before)

    def test_draws_are_named_by_the_seed_alone(
        self, build: Callable[..., Distiller], trajectories: Trajectories
    ) -> None:
        augmented = {"families": tuple(FAMILIES)}
        first = matching_losses(build(**augmented), trajectories, [0, 1, 2], seed=3)
        again = matching_losses(build(seed=5, **augmented), trajectories, [2, 0], seed=3)
        assert torch.equal(again, first[[2, 0]])
        assert not torch.equal(matching_losses(build(**augmented), trajectories, [0, 1, 2], seed=4), first)

    def test_nothing_is_learned_and_no_second_derivative_taken(
        self, build: Callable[..., Distiller], trajectories: Trajectories, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        distiller = build(**SOFT, ema_decay=0.5, alpha_floor=0.01, families=tuple(FAMILIES))
        before = {name: torch.as_tensor(value).clone() for name, value in distiller.state_dict().items()}

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a product was computed")

        monkeypatch.setattr(InnerStep, "products", refuse)
        matching_losses(distiller, trajectories, [0, 1], seed=0)
        assert all(torch.equal(torch.as_tensor(value), before[name]) for name, value in distiller.state_dict().items())
        with pytest.raises(AssertionError, match="product"):  # which a distillation does
            distiller.step()

    def test_steps_that_diverge_have_a_loss_that_is_not_finite(
        self, build: Callable[..., Distiller], trajectories: Trajectories
    ) -> None:
        losses = matching_losses(build(alpha=1e200), trajectories, [0, 1], seed=0)
        assert not torch.isfinite(losses).any()


CONFIG = dataclasses.asdict(distillation_config(**SETTINGS))


@pytest.fixture(scope="module")
def work(
    digits_path: Path, small_network: ConvNet, snapshots: list[list[Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> TrialWork:
    root = tmp_path_factory.mktemp("experts")
    store = TrajectoryStore(root, expert_identity(small_network, ("crop",)))
    store.record({number: store.write(number, each, [1.0] * 6) for number, each in enumerate(snapshots)})
    return TrialWork(
        dataset=digits_path, store=store, checkpoints="", settings=CONFIG, methods=own(Kind.METHOD), experts=3,
        epochs=6, protocol=Protocol(),
        validation_networks=1, validation_every_iterations=2, seed=7, device="cpu", compiled=False,
        memory_budget_bytes=None, device_share=1.0,
    )  # fmt: skip


class TestTrials:
    def test_distances_are_those_of_the_first_experts_over_the_horizon(
        self, work: TrialWork, snapshots: list[list[Tensor]]
    ) -> None:
        steps, totals = distances_of_experts(work, 2)
        assert len(steps) == len(totals) == 6
        for expert in range(2):
            path = [theta.double() for theta in snapshots[expert]]
            expected = [float((after - before).norm()) for before, after in pairwise(path)]
            assert [row[expert] for row in steps] == pytest.approx(expected, rel=1e-12)
            assert [row[expert] for row in totals] == pytest.approx(
                [float((theta - path[0]).norm()) for theta in path[1:]], rel=1e-12
            )

    @pytest.mark.parametrize("changed", [{}, SOFT, {"ema_decay": 0.5}], ids=["hard", "soft", "average"])
    def test_losses_are_those_of_the_set_that_a_trial_began_with_or_left(
        self, work: TrialWork, trajectories: Trajectories, tmp_path: Path, changed: dict[str, Any]
    ) -> None:
        distiller = Workbench(work).distiller(changed)
        began = losses_of_trial(work, changed, None, 3, 9, 5)
        assert began is not None and isinstance(distiller, Distiller)
        assert began.alpha == CONFIG["alpha_init"] and began.start_epochs == [0, 1, 2, 3, 4]
        expected = matching_losses(distiller, trajectories, began.start_epochs, 5)
        assert began.losses == expected.tolist()
        for _ in range(3):
            distiller.step()
        place = checkpoint_place(str(tmp_path), 0)
        write_checkpoint(place, {**distiller.state_dict(), "trial_seconds": 1.0})
        left = losses_of_trial(work, changed, place, 2, 9, 5)
        assert left is not None
        assert left.alpha == distiller.alpha != began.alpha
        both = work.store.open(range(2), 6)
        assert left.losses == matching_losses(distiller, both, left.start_epochs, 5).tolist()
        assert left.losses != [row[:2] for row in began.losses]

    @pytest.mark.parametrize(("most", "starts"), [(1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (4, [0, 1, 3, 4])])
    def test_start_epochs_are_spread_evenly_from_first_to_last(
        self, work: TrialWork, most: int, starts: list[int]
    ) -> None:
        found = losses_of_trial(work, {}, None, 1, most, 5)
        assert found is not None and found.start_epochs == starts

    def test_a_trial_that_left_no_checkpoint_has_no_losses_whatever_its_settings(
        self, work: TrialWork, tmp_path: Path
    ) -> None:
        assert losses_of_trial(work, {"N": 0}, checkpoint_place(str(tmp_path), 3), 1, 9, 5) is None


def vector_of_gradients(module: nn.Module) -> Tensor:
    gradients: list[Any] = [parameter.grad for parameter in module.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients])
