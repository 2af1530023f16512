"""Experts against torch.optim and a slow GSAM written from docs/method.md, "Experts" on lists of parameters."""

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.experts import expert_identity
from tests.support.references import module_of, relative_error, vector_of
from tests.support.settings import expert_recipe
from trainables.data.augmentation import Augmentation, Draw
from trainables.data.datasets import ImageDataset
from trainables.experts.store import TrajectoryStore
from trainables.experts.training import (
    DivergedExpert,
    ExpertState,
    ExpertTrainer,
    experts_at_once,
    gsam_direction,
    sam_perturbation,
)
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator
from trainables.storage.writing_pace import WRITING_SHARE, WritingPace
from trainables.workers.expert import ExpertActor, ExpertWork, GroupProgress

NETWORK = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=6)
CPU = torch.device("cpu")
# ρ and α far above the usual ones, so that a wrong perturbation or a wrong projection is no rounding error.
STRONG = {"expert_lr": 0.05, "expert_batch_size": 200, "sam_rho": 0.5, "gsam_alpha": 0.6}


@pytest.fixture
def trainer(small_digits: ImageDataset) -> Callable[..., ExpertTrainer]:
    def build(*, augmentation: tuple[str, ...] = (), seed: int = 7, **recipe: Any) -> Any:
        return ExpertTrainer(
            dataset=small_digits,
            network=NETWORK,
            recipe=expert_recipe(**{**STRONG, **recipe}),
            augmentation=Augmentation(families=augmentation),
            seed=seed,
            device=CPU,
        )

    return build


class Doubled(ImageDataset):
    """The same images in float64."""

    def normalized(self, split: str, rows: Any = None, device: Any = "cpu") -> Tensor:
        return super().normalized(split, rows, device).double()


def doubled(trainer: ExpertTrainer) -> ExpertTrainer:
    return replace(trainer, dataset=Doubled(**vars(trainer.dataset)))


def start_doubled(trainer: ExpertTrainer, expert: int) -> ExpertState:
    state = trainer.start(expert)
    return replace(state, theta=state.theta.double(), velocity=state.velocity.double())


def trained(trainer: ExpertTrainer, expert: int, epochs: int, state: ExpertState | None = None) -> list[ExpertState]:
    states = [state or trainer.start(expert)]
    for _ in range(epochs):
        states.append(trainer.train_epoch(expert, states[-1]))
    return states


def train_together(trainer: ExpertTrainer, experts: list[int], states: list[ExpertState]) -> list[ExpertState]:
    """Train experts side by side by an epoch; none may diverge."""
    done = trainer.train_epoch_together(experts, states)
    after = [state for state in done if isinstance(state, ExpertState)]
    assert len(after) == len(done)
    return after


def gradients(module: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    loss = F.cross_entropy(module(images), labels)
    return [gradient.clone() for gradient in torch.autograd.grad(loss, list(module.parameters()))]


def norm_of(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float((tensor**2).sum()) for tensor in tensors))


@torch.no_grad()
def add_to(parameters: Iterable[Tensor], tensors: Iterable[Tensor]) -> None:
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.add_(tensor)


def gsam_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    rho: float,
    alpha: float,
    adaptive: bool,
) -> None:
    """docs/method.md, "Experts", steps 1 to 5, a parameter at a time."""
    parameters = list(module.parameters())
    g = gradients(module, images, labels)
    if adaptive:
        size = norm_of([p.detach().abs() * gradient for p, gradient in zip(parameters, g, strict=True)]) + 1e-12
        e = [rho * p.detach() ** 2 * gradient / size for p, gradient in zip(parameters, g, strict=True)]
    else:
        e = [rho * gradient / (norm_of(g) + 1e-12) for gradient in g]
    saved = [parameter.detach().clone() for parameter in parameters]
    add_to(parameters, e)
    g_s = gradients(module, images, labels)
    cosine = sum(float((a * b).sum()) for a, b in zip(g, g_s, strict=True)) / (norm_of(g) * norm_of(g_s))
    v = [a - cosine * norm_of(g) * b / norm_of(g_s) for a, b in zip(g, g_s, strict=True)]
    for parameter, value, sharp, orthogonal in zip(parameters, saved, g_s, v, strict=True):
        parameter.data.copy_(value)
        parameter.grad = sharp - alpha * orthogonal
    optimizer.step()


def sgd_step(module: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(module(images), labels).backward()
    optimizer.step()


def reference_epochs(trainer: ExpertTrainer, expert: int, epochs: int, step: Callable[..., None]) -> Tensor:
    """The same batches in float64, on modules with torch.optim.SGD; the parameters after all epochs."""
    dataset, recipe = trainer.dataset, trainer.recipe
    module = module_of(trainer.network, trainer.start(expert).theta.double())
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=recipe.expert_lr,
        momentum=recipe.expert_momentum,
        weight_decay=recipe.expert_weight_decay,
    )
    for epoch in range(epochs):
        draws = generator(trainer.seed, "expert", expert, "epoch", epoch)
        order = torch.randperm(len(dataset.split("train")), generator=draws)
        for first in range(0, len(order), recipe.expert_batch_size):
            index = order[first : first + recipe.expert_batch_size]
            draw = trainer.augmentation.draw(len(index), 8, draws)
            images = trainer.augmentation.apply(dataset.normalized("train", index).double(), draw)
            step(module, optimizer, images, dataset.labels("train", index))
    return vector_of(module)


def moved_alike(trainer: ExpertTrainer, expert: int, epochs: int, step: Callable[..., None]) -> float:
    """How far the trainer in float64 ends from the reference, relative to the way it went."""
    states = trained(doubled(trainer), expert, epochs, start_doubled(trainer, expert))
    assert states[-1].theta.dtype == torch.float64
    start = states[0].theta
    return relative_error(states[-1].theta - start, reference_epochs(trainer, expert, epochs, step) - start)


class TestAgainstReferences:
    @pytest.mark.parametrize("adaptive", [True, False])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"expert_momentum": 0.8, "expert_weight_decay": 0.01},
            {"augmentation": ("color", "crop", "flip", "rotate")},
        ],
        ids=["plain", "momentum", "augmented"],
    )
    def test_gsam(self, trainer: Callable[..., ExpertTrainer], adaptive: bool, options: dict[str, Any]) -> None:
        subject = trainer(sam_adaptive=adaptive, **options)

        def step(*batch: Any) -> None:
            gsam_step(*batch, rho=0.5, alpha=0.6, adaptive=adaptive)

        assert moved_alike(subject, 3, 1, step) < 1e-10

    def test_sgd(self, trainer: Callable[..., ExpertTrainer]) -> None:
        subject = trainer(expert_optimizer="sgd", expert_momentum=0.9, expert_weight_decay=5e-3)
        assert moved_alike(subject, 0, 3, sgd_step) < 1e-10

    @pytest.mark.parametrize("optimizer", ["gsam", "sgd"])
    def test_float32_is_the_same_to_rounding(self, trainer: Callable[..., ExpertTrainer], optimizer: str) -> None:
        subject = trainer(expert_optimizer=optimizer, augmentation=("color", "crop"))
        exact = trained(doubled(subject), 1, 1, start_doubled(subject, 1))
        rounded = trained(subject, 1, 1)
        assert relative_error(rounded[1].theta - rounded[0].theta, exact[1].theta - exact[0].theta) < 1e-2

    def test_the_two_optimizers_differ_by_more_than_the_tolerance(self, trainer: Callable[..., ExpertTrainer]) -> None:
        assert moved_alike(trainer(), 0, 2, sgd_step) > 0.1


class TestPerturbation:
    def vectors(self) -> tuple[Tensor, Tensor]:
        draws = generator("perturbation")
        theta, gradient = torch.randn(2, 300, dtype=torch.float64, generator=draws)
        theta[::7] = 0
        return theta, gradient

    def test_plain_sam_goes_rho_along_the_gradient(self) -> None:
        theta, gradient = self.vectors()
        e = sam_perturbation(theta, gradient, 0.3, adaptive=False)
        assert float(e.norm()) == pytest.approx(0.3, rel=1e-10)
        assert float(F.cosine_similarity(e, gradient, dim=0)) == pytest.approx(1, rel=1e-12)

    def test_asam_goes_rho_in_units_of_the_parameters_and_leaves_zeros_alone(self) -> None:
        theta, gradient = self.vectors()
        e = sam_perturbation(theta, gradient, 0.3, adaptive=True)
        assert torch.equal(e == 0, theta == 0)
        moving = theta != 0
        assert float((e[moving] / theta[moving].abs()).norm()) == pytest.approx(0.3, rel=1e-10)

    def test_asam_leaves_the_initial_biases_of_the_norms_unperturbed(self) -> None:
        theta = NETWORK.initial(generator("asam"))
        e = NETWORK.unflatten(sam_perturbation(theta, torch.ones_like(theta), 0.3, adaptive=True))
        assert [name for name, values in e.items() if not values.any()] == ["norm0.bias", "norm1.bias"]

    @pytest.mark.parametrize("adaptive", [False, True])
    def test_a_vanishing_gradient_gives_no_perturbation(self, adaptive: bool) -> None:
        theta, gradient = self.vectors()
        assert not sam_perturbation(theta, 0 * gradient, 0.3, adaptive=adaptive).any()


class TestGsamDirection:
    def vectors(self) -> tuple[Tensor, Tensor]:
        gradient, perturbed = torch.randn(2, 300, dtype=torch.float64, generator=generator("direction"))
        return gradient, perturbed

    def test_what_it_takes_away_is_the_part_of_g_orthogonal_to_the_perturbed_gradient(self) -> None:
        gradient, perturbed = self.vectors()
        v = (perturbed - gsam_direction(gradient, perturbed, 0.3)) / 0.3
        assert abs(float(v @ perturbed)) < 1e-12 * float(v.norm() * perturbed.norm())
        # The rest of g is a multiple of g_s.
        assert abs(float(F.cosine_similarity(gradient - v, perturbed, dim=0))) == pytest.approx(1, rel=1e-12)

    def test_alpha_0_is_sam_and_parallel_gradients_leave_nothing_to_take_away(self) -> None:
        gradient, perturbed = self.vectors()
        assert torch.equal(gsam_direction(gradient, perturbed, 0.0), perturbed)
        assert relative_error(gsam_direction(3 * perturbed, perturbed, 0.7), perturbed) < 1e-14

    def test_a_vanishing_perturbed_gradient_divides_nothing_by_zero(self) -> None:
        gradient, perturbed = self.vectors()
        assert torch.equal(gsam_direction(gradient, 0 * perturbed, 0.5), -0.5 * gradient)


class TestEpochs:
    def test_the_same_seed_and_number_give_the_same_bits_and_any_other_different_ones(
        self, trainer: Callable[..., ExpertTrainer]
    ) -> None:
        ends = {
            (seed, expert): trained(trainer(seed=seed, augmentation=("flip",)), expert, 2)[-1].theta
            for seed, expert in ((7, 0), (7, 1), (8, 0))
        }
        again = trained(trainer(seed=7, augmentation=("flip",)), 0, 2)[-1]
        assert torch.equal(again.theta, ends[7, 0])
        assert not torch.equal(ends[7, 1], ends[7, 0])
        assert not torch.equal(ends[8, 0], ends[7, 0])

    def test_epochs_have_batches_of_their_own(self, trainer: Callable[..., ExpertTrainer]) -> None:
        subject = trainer()
        state = subject.start(0)
        later = ExpertState(state.theta, state.velocity, 1, state.loss)
        assert not torch.equal(subject.train_epoch(0, state).theta, subject.train_epoch(0, later).theta)

    def test_the_state_given_is_left_as_it_was(self, trainer: Callable[..., ExpertTrainer]) -> None:
        states, copies = [trainer(expert_momentum=0.9).start(0)], []
        for _ in range(3):
            copies.append((states[-1].theta.clone(), states[-1].velocity.clone()))
            states.append(trainer(expert_momentum=0.9).train_epoch(0, states[-1]))
        for state, (theta, velocity) in zip(states, copies, strict=False):
            assert torch.equal(state.theta, theta)
            assert torch.equal(state.velocity, velocity)
        assert len({state.theta.data_ptr() for state in states}) == len(states)
        assert not any(state.theta.requires_grad for state in states)

    def test_the_start_is_the_networks_own_distribution_and_counts_no_epoch(
        self, trainer: Callable[..., ExpertTrainer]
    ) -> None:
        state = trainer().start(4)
        assert torch.equal(state.theta, NETWORK.initial(generator(7, "expert", 4, "initial")))
        assert (state.epoch, float(state.velocity.norm())) == (0, 0)
        assert math.isnan(state.loss)

    @pytest.mark.parametrize("batch_size", [1077, 1000, 2000])
    def test_the_loss_is_the_mean_over_all_images_also_those_of_the_last_partial_batch(
        self, trainer: Callable[..., ExpertTrainer], batch_size: int
    ) -> None:
        subject = trainer(expert_batch_size=batch_size, expert_lr=1e-12)
        start = subject.start(0)
        logits = NETWORK.logits(start.theta, subject.dataset.normalized("train"))
        expected = float(F.cross_entropy(logits, subject.dataset.labels("train")))
        assert subject.train_epoch(0, start).loss == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("optimizer", ["gsam", "sgd"])
    def test_divergence_names_expert_seed_and_epoch(
        self, trainer: Callable[..., ExpertTrainer], optimizer: str
    ) -> None:
        subject = trainer(expert_lr=1e30, expert_optimizer=optimizer)
        with pytest.raises(
            DivergedExpert, match=r"expert 3 \(seed 7\) diverged in epoch 1: .*lower expert_lr \(1e\+30\)"
        ):
            subject.train_epoch(3, subject.start(3))

    def test_divergence_names_the_epoch_it_happened_in(self, trainer: Callable[..., ExpertTrainer]) -> None:
        subject = trainer()
        state = trained(subject, 0, 2)[-1]
        with pytest.raises(DivergedExpert, match="diverged in epoch 3"):
            subject.train_epoch(0, ExpertState(state.theta * float("nan"), state.velocity, state.epoch, state.loss))


class Recording(ImageDataset):
    """Remembers which rows it was asked for."""

    def normalized(self, split: str, rows: Any = None, device: Any = "cpu") -> Tensor:
        vars(self).setdefault("asked", []).append(rows.clone())
        return super().normalized(split, rows, device)


class RecordingAugmentation(Augmentation):
    """Remembers its draws."""

    def draw(self, batch: int, side: int, draws: torch.Generator) -> Draw | None:
        drawn = super().draw(batch, side, draws)
        assert drawn is not None
        vars(self).setdefault("drawn", []).append((batch, drawn.family))
        return drawn


class TestOrder:
    """docs/method.md, "Experts": full shuffle, the last partial batch kept, one family a batch."""

    @pytest.fixture
    def orders(self, trainer: Callable[..., ExpertTrainer]) -> dict[tuple[int, int], Tensor]:
        """Rows in the order of training, by (expert, epoch)."""
        subject = trainer(expert_optimizer="sgd", expert_batch_size=500)
        orders = {}
        for expert in (0, 1):
            state = subject.start(expert)
            for epoch in range(8):
                recording = Recording(**vars(subject.dataset))
                state = replace(subject, dataset=recording).train_epoch(expert, state)
                assert [len(rows) for rows in vars(recording)["asked"]] == [500, 500, 78]
                orders[expert, epoch] = torch.cat(vars(recording)["asked"])
        return orders

    def test_every_image_comes_once_an_epoch(self, orders: dict[tuple[int, int], Tensor]) -> None:
        for order in orders.values():
            assert torch.equal(order.sort().values, torch.arange(1078))

    def test_orders_are_uniform_and_independent(self, orders: dict[tuple[int, int], Tensor]) -> None:
        places = torch.stack([order.argsort() for order in orders.values()]).double()
        rows = torch.arange(1078.0).double()
        # Correlations of independent orders are about normal, of variance 1 / (n − 1): none of 136 is 5 σ away.
        together = torch.corrcoef(torch.cat([places, rows[None]])) - torch.eye(17)
        assert float(together.abs().max()) < 5 / math.sqrt(1077)
        # An image's mean place over 16 orders is about normal, too: σ² = (n² − 1) / 12 / 16.
        spread = (places.mean(0) - 538.5) / math.sqrt((1078**2 - 1) / 12 / 16)
        assert float(spread.std()) == pytest.approx(1, abs=0.15)

    def test_a_batch_has_one_family_and_a_draw_for_each_image(self, trainer: Callable[..., ExpertTrainer]) -> None:
        augmentation = RecordingAugmentation(families=("color", "crop", "cutout", "flip", "scale", "rotate"))
        subject = replace(trainer(expert_optimizer="gsam", expert_batch_size=100), augmentation=augmentation)
        trained(subject, 0, 6)
        drawn = vars(augmentation)["drawn"]
        assert [batch for batch, _ in drawn] == ([100] * 10 + [78]) * 6  # one draw serves both passes
        counts = [sum(family == name for _, family in drawn) for name in augmentation.families]
        assert min(counts) >= 3  # of 66; 11 are expected, σ = 3


class TestTogether:
    """Several experts side by side come out as one at a time."""

    @pytest.mark.parametrize(
        "options",
        [
            {"augmentation": ("color", "crop", "cutout", "flip", "scale", "rotate"), "expert_momentum": 0.9},
            {"sam_adaptive": False, "expert_weight_decay": 0.01},
            {"expert_optimizer": "sgd", "expert_momentum": 0.5},
        ],
        ids=["asam", "sam", "sgd"],
    )
    def test_as_alone_in_float64(self, trainer: Callable[..., ExpertTrainer], options: dict[str, Any]) -> None:
        subject = doubled(trainer(**options))
        # Out of order, and expert 4 an epoch ahead of the others.
        experts, states = [4, 0, 2], [start_doubled(subject, expert) for expert in (4, 0, 2)]
        states[0] = subject.train_epoch(4, states[0])
        for expert, state, later in zip(experts, states, train_together(subject, experts, states), strict=True):
            alone = subject.train_epoch(expert, state)
            assert relative_error(later.theta - state.theta, alone.theta - state.theta) < 1e-11
            assert relative_error(later.velocity, alone.velocity) < 1e-11
            assert later.epoch == alone.epoch
            assert later.loss == pytest.approx(alone.loss, rel=1e-6)

    def test_states_are_left_alone_and_share_no_memory(self, trainer: Callable[..., ExpertTrainer]) -> None:
        subject = trainer()
        states = [subject.start(expert) for expert in range(3)]
        before = [state.theta.clone() for state in states]
        later = train_together(subject, [0, 1, 2], states)
        assert all(torch.equal(state.theta, theta) for state, theta in zip(states, before, strict=True))
        tensors = [tensor for state in (*states, *later) for tensor in (state.theta, state.velocity)]
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)  # no views

    def test_one_that_diverges_is_named_and_does_not_touch_the_others(
        self, trainer: Callable[..., ExpertTrainer]
    ) -> None:
        subject = doubled(trainer())
        states = [start_doubled(subject, expert) for expert in range(3)]
        states[1] = replace(states[1], theta=states[1].theta * float("nan"), epoch=4)
        first, second, third = subject.train_epoch_together(range(3), states)
        assert isinstance(second, DivergedExpert)
        assert str(second).startswith("expert 1 (seed 7) diverged in epoch 5: ")
        for expert, later in ((0, first), (2, third)):
            assert isinstance(later, ExpertState)
            assert relative_error(later.theta, subject.train_epoch(expert, states[expert]).theta) < 1e-12

    def test_images_kept_on_the_device_are_the_same(self, trainer: Callable[..., ExpertTrainer]) -> None:
        subject = trainer(augmentation=("flip", "rotate"))
        state = subject.start(0)
        expected, actual = subject.train_epoch(0, state), replace(subject, resident=True).train_epoch(0, state)
        assert torch.equal(actual.theta, expected.theta)
        assert actual.loss == expected.loss


class TestHowManyAtOnce:
    def test_one_on_a_cpu(self, trainer: Callable[..., ExpertTrainer], tmp_path: Path) -> None:
        assert experts_at_once(trainer(), 0.0, tmp_path) == 1 and not list(tmp_path.iterdir())

    @pytest.mark.parametrize("at_once", [1, 3])
    def test_a_measured_step_takes_time(self, trainer: Callable[..., ExpertTrainer], at_once: int) -> None:
        assert 0 < trainer(expert_batch_size=5000).seconds_per_step(at_once) < 60


@pytest.fixture
def work(trainer: Callable[..., ExpertTrainer], tmp_path: Path, digits_path: Path) -> Callable[..., ExpertWork]:
    def build(epochs: int, **recipe: Any) -> Any:
        subject = trainer(augmentation=("crop", "flip"), **recipe)
        return ExpertWork(
            dataset=digits_path,
            store=TrajectoryStore(
                tmp_path,
                expert_identity(NETWORK, recipe=subject.recipe, augmentation=subject.augmentation, seed=subject.seed),
            ),
            epochs=epochs,
            device="cpu",
            kept=tmp_path / "kept",
        )

    return build


def train_group(work: ExpertWork, experts: list[int], extend: bool = False) -> list[GroupProgress]:
    """Train a group to the horizon as the driver does; returns what every call said."""
    actor, store = ExpertActor(work, 0.0), work.store
    said = [actor.begin(experts, experts if extend else [])]
    while said[-1].under_way:
        said.append(actor.train_epoch())
        if said[-1].finished:
            store.record(said[-1].finished)
    return said


def extend_elsewhere(work: ExpertWork, experts: list[int]) -> Any:
    torch.set_num_threads(1)
    return train_group(work, experts, extend=True)[0].epochs


def assert_stored(work: ExpertWork, trainer: ExpertTrainer, expert: int, epochs: int) -> None:
    """The file holds, bit for bit, what uninterrupted training of one expert comes to."""
    states, stored = trained(trainer, expert, epochs), work.store.load(expert)
    assert stored.losses == [state.loss for state in states[1:]]
    assert len(stored.snapshots) == len(states)
    assert all(torch.equal(one, state.theta) for one, state in zip(stored.snapshots, states, strict=True))
    if work.store.identity.recipe.expert_momentum:
        assert stored.velocity is not None and torch.equal(stored.velocity, states[-1].velocity)


class TestActor:
    OPTIONS = pytest.mark.parametrize(
        "options",
        [
            {"expert_optimizer": optimizer, "expert_momentum": momentum}
            for optimizer in ("gsam", "sgd")
            for momentum in (0.0, 0.9)
        ],
        ids=lambda options: "-".join(map(str, options.values())),
    )

    @OPTIONS
    def test_extends_a_file_bit_for_bit(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork], options: dict[str, Any]
    ) -> None:
        assert train_group(work(3, **options), [1])[0].epochs == {1: 0}
        assert train_group(work(5, **options), [1], extend=True)[0].epochs == {1: 3}
        assert_stored(work(5, **options), trainer(augmentation=("crop", "flip"), **options), 1, 5)

    def test_extends_a_file_bit_for_bit_in_a_new_process(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        options = {"expert_momentum": 0.9}
        train_group(work(2, **options), [3])
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert pool.submit(extend_elsewhere, work(4, **options), [3]).result(120) == {3: 2}
        assert_stored(work(4, **options), trainer(augmentation=("crop", "flip"), **options), 3, 4)

    def test_trains_a_file_without_momentum_buffer_again_from_the_start(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        options = {"expert_momentum": 0.9}
        subject = trainer(augmentation=("crop", "flip"), **options)
        states, store = trained(subject, 0, 2), work(2, **options).store
        store.record({0: store.write(0, [s.theta for s in states], [s.loss for s in states[1:]])})
        assert train_group(work(3, **options), [0], extend=True)[0].epochs == {0: 0}
        assert_stored(work(3, **options), subject, 0, 3)

    def test_a_momentum_buffer_is_stored_where_there_is_momentum(self, work: Callable[..., ExpertWork]) -> None:
        for expert, momentum in enumerate((0.0, 0.5)):
            asked = work(1, expert_momentum=momentum)
            train_group(asked, [expert])
            assert (asked.store.load(expert).velocity is not None) == (momentum > 0)

    def test_a_lost_one_leaves_a_file_from_which_another_comes_to_the_same_bits(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        options = {"expert_momentum": 0.9}
        lost, store = ExpertActor(work(4, **options), 0.0), work(4, **options).store
        lost.begin([2], [])
        assert lost.train_epoch().finished == {}
        store.recover([2])
        assert store.read()[2].rows == 2  # the first epoch is written at once
        assert train_group(work(4, **options), [2], extend=True)[0].epochs == {2: 1}
        assert_stored(work(4, **options), trainer(augmentation=("crop", "flip"), **options), 2, 4)

    def test_a_file_that_holds_as_much_is_never_written_over(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        options = {"expert_momentum": 0.9}
        subject, store = trainer(augmentation=("crop", "flip"), **options), work(2, **options).store
        states = trained(subject, 0, 2)
        store.record({0: store.write(0, [s.theta for s in states], [s.loss for s in states[1:]])})  # no buffer
        before = store.path(0).read_bytes()
        actor = ExpertActor(work(3, **options), 0.0)
        assert actor.begin([0], [0]).epochs == {0: 0}
        for _ in range(2):
            actor.train_epoch()
            assert store.path(0).read_bytes() == before
        assert store.corrupt([0]) == {}
        (entry,) = actor.train_epoch().finished.values()
        store.record({0: entry})
        assert_stored(work(3, **options), subject, 0, 3)

    def test_one_that_was_taken_for_dead_leaves_what_another_has_finished(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        late = ExpertActor(work(2), 0.0)
        late.begin([0], [])
        train_group(work(2), [0])
        before = work(2).store.path(0).read_bytes()
        late.train_epoch()
        assert late.train_epoch().finished == {0: work(2).store.read()[0]}
        assert work(2).store.path(0).read_bytes() == before

    def test_a_damaged_file_is_written_over(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        store = work(2).store
        store.folder.mkdir()
        store.path(0).write_bytes(b"ARROW1 and no more")
        train_group(work(2), [0])
        assert_stored(work(2), trainer(augmentation=("crop", "flip")), 0, 2)

    def test_a_group_of_unequal_experts_ends_with_all_at_the_horizon(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        train_group(work(1), [0])
        actor, store = ExpertActor(work(3), 0.0), work(3).store
        said = [actor.begin([0, 2], [0])]
        while said[-1].under_way:
            said.append(actor.train_epoch())
        assert [one.epochs for one in said] == [{0: 1, 2: 0}, {0: 2, 2: 1}, {0: 3, 2: 2}, {0: 3, 2: 3}]
        assert [list(one.finished) for one in said] == [[], [], [0], [2]]
        store.record({**said[2].finished, **said[3].finished})
        for expert in (0, 2):
            states = trained(trainer(augmentation=("crop", "flip")), expert, 3)
            snapshots = store.load(expert).snapshots
            for one, state in zip(snapshots, states, strict=True):
                assert relative_error(one, state.theta) < 1e-2  # side by side, float32 differs by rounding
            assert not any(torch.equal(one, later) for one, later in itertools.pairwise(snapshots))

    def test_one_that_diverges_leaves_the_others_to_finish(
        self, trainer: Callable[..., ExpertTrainer], work: Callable[..., ExpertWork]
    ) -> None:
        subject, store = trainer(augmentation=("crop", "flip")), work(1).store
        for expert in range(3):
            states = trained(subject, expert, 1)
            last = states[1].theta if expert != 1 else states[1].theta * float("nan")
            store.record({expert: store.write(expert, [states[0].theta, last], [0.5])})
        said = train_group(work(3), [0, 1, 2], extend=True)
        assert [list(one.diverged) for one in said] == [[], [1], []]
        assert said[1].diverged[1].startswith("expert 1 (seed 7) diverged in epoch 2: ")
        assert {expert: entry.rows for expert, entry in store.read().items()} == {0: 4, 1: 2, 2: 4}
        assert store.short(range(3), 3) == [1]

    def test_a_group_that_diverges_altogether_is_over(self, work: Callable[..., ExpertWork]) -> None:
        said = train_group(work(3, expert_lr=1e30), [0, 1])
        assert sorted(said[-1].diverged) == [0, 1]
        assert not said[-1].under_way


class TestWritingPace:
    """Writing takes at most its share of the time, whatever it costs."""

    @pytest.mark.parametrize("cost", [0.0, 0.3, 7.0])
    def test_once_at_first_and_then_as_seldom_as_it_costs(self, cost: float) -> None:
        now, written, epochs, epoch_s = 100.0, 0, 1000, 1.0
        pace = WritingPace(lambda: now)
        trained = 0.0
        for epoch in range(epochs):
            now += epoch_s
            trained += epoch_s
            if pace.due():
                assert written or epoch == 0
                with pace.measured():
                    now += cost
                written += 1
        assert written * cost <= WRITING_SHARE * trained + cost
        assert written >= (epochs if cost == 0 else WRITING_SHARE * trained / (cost + WRITING_SHARE * epoch_s))


def test_experts_learn_the_digits(trainer: Callable[..., ExpertTrainer]) -> None:
    subject = trainer(expert_lr=0.1, expert_batch_size=64, sam_rho=0.01, gsam_alpha=0.3)
    theta = trained(subject, 0, 6)[-1].theta
    predicted = module_of(NETWORK, theta)(subject.dataset.normalized("test")).argmax(dim=1)
    assert float((predicted == subject.dataset.labels("test")).double().mean()) > 0.8
