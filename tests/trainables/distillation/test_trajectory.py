"""The distiller: whole runs written out in plain PyTorch, resumed equals uninterrupted, what a skipped step leaves."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.references import convnet_module, relative_error
from tests.support.settings import distillation_config
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.learned_images import Learned
from trainables.distillation.matching import Chunk, Matcher
from trainables.distillation.trajectory import Distiller
from trainables.errors import ConfigError
from trainables.experts.store import Trajectories
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")
SETTINGS = {
    "ipc": 2,
    "N": 5,
    "M": 2,
    "T_minus": 0,
    "T": 2,
    "T_plus": 4,
    "interval": 2,
    "lr_pixel": 50.0,
    "lr_alpha": 1e-3,
    "alpha_init": 0.05,
    "batch_syn": 8,  # of 20 images: pieces of 8, 8 and a ragged 4
    "momentum_pixel": 0.5,
    "momentum_alpha": 0.6,
    "max_matching_loss": 10.0,
}
SOFT = {"label_mode": "soft", "lr_label": 20.0}
MOST = {**SOFT, "ema_decay": 0.5}


@pytest.fixture
def make(small_digits: ImageDataset, small_network: ConvNet, trajectories: Trajectories) -> Callable[..., Distiller]:
    def build(
        *,
        families: tuple[str, ...] = (),
        seed: int = 0,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        **changed: Any,
    ) -> Distiller:
        config = distillation_config(**{**SETTINGS, **changed})
        if labels is None:
            labels = default_order_labels(config.ipc, 10)
            if config.label_mode == "soft":
                labels = 3 * F.one_hot(labels, 10) + torch.randn(len(labels), 10, generator=generator("labels"))
        matcher = Matcher(InnerStep(small_network), Augmentation(families=families), method=config.gradient)
        return Distiller(
            config,
            matcher=matcher,
            trajectories=trajectories,
            images=real_images(small_digits, config.ipc, 0) if images is None else images,
            labels=labels,
            seed=seed,
        )

    return build


@pytest.fixture
def double(make: Callable[..., Distiller], small_digits: ImageDataset) -> Callable[..., Distiller]:
    """A distiller that computes in float64."""
    return lambda **options: make(images=real_images(small_digits, options.get("ipc", 2), 0).double(), **options)


def same_state(one: Distiller, other: Distiller, but: tuple[str, ...] = ()) -> None:
    state, expected = one.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        if name not in but:
            equal = torch.equal(value, expected[name]) if isinstance(value, torch.Tensor) else value == expected[name]
            assert equal, name


def reference_chunks(
    draws: torch.Generator, images: int, batch: int, N: int, augmentation: Augmentation
) -> list[Chunk]:
    """docs/method.md, "Distillation", step 3: pop chunks of a permutation from the end; permute when none is left."""
    pieces: list[list[int]] = []
    chunks: list[Chunk] = []
    while len(chunks) < N:
        if not pieces:
            order = torch.randperm(images, generator=draws).tolist()
            pieces = [order[first : first + batch] for first in range(0, images, batch)]
        indices = torch.tensor(pieces.pop())
        chunks.append(Chunk(indices, augmentation.draw(len(indices), 8, draws)))
    return chunks


def matching_loss(
    module: nn.Module,
    theta: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    alpha: Tensor,
    chunks: list[Chunk],
    augmentation: Augmentation,
) -> Tensor:
    """docs/method.md, "Distillation", steps 3 and 4, as the reference codes have it: a loop with its graph kept."""
    start, shapes = theta, {name: parameter.shape for name, parameter in module.named_parameters()}
    for chunk in chunks:
        pieces = theta.split([shape.numel() for shape in shapes.values()])
        named = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
        x = augmentation.apply(images[chunk.indices], chunk.draw)
        logits, y = torch.func.functional_call(module, named, (x,)), labels[chunk.indices]
        if y.is_floating_point():
            loss = -(F.softmax(y, dim=1) * F.log_softmax(logits, dim=1)).sum() / len(y)
        else:
            loss = F.cross_entropy(logits, y)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - alpha * gradient
    return (theta - target).square().sum() / (start.detach() - target).square().sum()


def reference_run(distiller: Distiller, iterations: int) -> tuple[Tensor, Tensor, float, Tensor, list[tuple[Any, ...]]]:
    """A distillation in float64 by autograd and torch.optim.SGD: what is learned, the average, and what happened.

    Source: docs/method.md, "Distillation".

    Of each iteration: expert, start, upper bound, loss, whether skipped, whether α was floored.
    """
    config, trajectories = distiller.config, distiller.trajectories
    module = convnet_module(distiller.matcher.step.network).double()
    images = distiller.initial_images.clone().requires_grad_()
    labels = distiller.labels.clone()
    logarithm = config.alpha_update == "log"
    first, floor = (torch.tensor(value, dtype=torch.float64) for value in (config.alpha, config.alpha_floor))
    parameter = (first.log() if logarithm else first).requires_grad_()
    optimizers = [
        torch.optim.SGD([images], lr=config.lr_pixel, momentum=config.momentum_pixel),
        torch.optim.SGD([parameter], lr=config.lr_alpha, momentum=config.momentum_alpha),
    ]
    if config.label_mode == "soft":
        labels.requires_grad_()
        optimizers.append(torch.optim.SGD([labels], lr=config.lr_label, momentum=config.momentum_label))
    average = images.detach().clone()
    done = []
    for iteration in range(iterations):
        lap = iteration // len(trajectories)
        order = torch.randperm(len(trajectories), generator=generator(distiller.seed, "expert order", lap)).tolist()
        expert = order[iteration % len(trajectories)]
        draws = generator(distiller.seed, "distillation", iteration)
        upper = min(config.T + iteration // config.interval, config.T_plus)
        start = config.T_minus + int(torch.randint(upper - config.T_minus, (), generator=draws))
        augmentation = distiller.matcher.augmentation
        chunks = reference_chunks(draws, len(images), config.batch_syn, config.N, augmentation)
        theta = trajectories.snapshot(expert, start).double().requires_grad_()
        target = trajectories.snapshot(expert, start + config.M).double()
        alpha = parameter.exp() if logarithm else parameter  # autograd finds the chain rule by itself
        loss = matching_loss(module, theta, target, images, labels, alpha, chunks, augmentation)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        skipped, floored = loss.item() > config.max_matching_loss, False
        if not skipped:
            for optimizer in optimizers:
                optimizer.step()
            if config.alpha_floor and parameter < (floor.log() if logarithm else floor):
                floored = True
                parameter.data.copy_(floor.log() if logarithm else floor)
            average = config.ema_decay * average + (1 - config.ema_decay) * images.detach()
        done.append((expert, start, upper, loss.item(), skipped, floored))
    alpha = parameter.exp() if logarithm else parameter
    return images.detach(), labels.detach(), alpha.item(), average, done


LOG = {"alpha_update": "log", "lr_alpha": 0.3}
EVERYTHING = {**SOFT, "ema_decay": 0.6, "lr_alpha": 2e-2, "alpha_floor": 0.045, "max_matching_loss": 0.8, "seed": 1}


class TestAgainstAReference:
    @pytest.mark.parametrize(
        "options",
        [
            {"seed": 3},
            {"seed": 3, "gradient": "unrolled"},
            {"families": FAMILIES},
            SOFT,
            {**SOFT, "families": FAMILIES, "ema_decay": 0.9},
            {**SOFT, "lr_label": 0.0},
            EVERYTHING,
            LOG,
            {**EVERYTHING, **LOG},
        ],
        ids=[
            "hard",
            "unrolled",
            "augmented",
            "soft",
            "soft augmented averaged",
            "soft kept",
            "everything",
            "log",
            "everything log",
        ],
    )
    def test_whole_runs_are_those_of_autograd_and_torchs_sgd_in_float64(
        self, double: Callable[..., Distiller], options: dict[str, Any]
    ) -> None:
        distiller = double(**options)
        first = distiller.labels.clone()
        images, labels, alpha, average, expected = reference_run(distiller, 9)
        for (expert, start, upper, loss, skipped, floored), found in zip(
            expected, [distiller.step() for _ in range(9)], strict=True
        ):
            assert (found.expert, found.start_epoch, found.upper) == (expert, start, upper)
            assert (found.skipped, found.floored, found.finite) == (skipped, floored, True)
            assert found.loss == pytest.approx(loss, rel=1e-9)
        way = images - distiller.initial_images
        assert relative_error(distiller.images - distiller.initial_images, way) < 1e-8
        assert float(way.abs().max()) > 0.01
        assert distiller.alpha - 0.05 == pytest.approx(alpha - 0.05, rel=1e-8)
        if distiller.config.lr_label:
            assert float((labels - first).abs().max()) > 0.01
            assert relative_error(distiller.labels - first, labels - first) < 1e-8
        else:
            assert torch.equal(distiller.labels, first)
        result = average if distiller.config.ema_decay else images
        moved = distiller.result_images - distiller.initial_images
        assert relative_error(moved, result - distiller.initial_images) < 1e-8
        assert distiller.skipped == sum(skipped for *_, skipped, _ in expected)
        assert distiller.floored == sum(floored for *_, floored in expected)

    def test_everything_means_updates_skips_and_floors(self, double: Callable[..., Distiller]) -> None:
        *_, done = reference_run(double(**EVERYTHING), 9)
        kinds = {(skipped, floored) for *_, skipped, floored in done}
        assert kinds == {(False, False), (False, True), (True, False)}

    def test_the_gradient_asked_for_is_the_one_taken(self, double: Callable[..., Distiller]) -> None:
        exact, truncated = (double(gradient=gradient) for gradient in ("exact", "truncated"))
        assert exact.step().loss == truncated.step().loss
        way = truncated.images - truncated.initial_images
        assert 1e-3 < relative_error(way, exact.images - exact.initial_images) < 1


class TestChunks:
    @pytest.mark.parametrize(
        ("batch", "N", "sizes"),
        [
            (8, 7, [4, 8, 8, 4, 8, 8, 4]),
            (20, 3, [20] * 3),
            (1000, 3, [20] * 3),
            (19, 4, [1, 19, 1, 19]),
            (10, 3, [10] * 3),
        ],
    )
    def test_the_ragged_piece_comes_first_and_every_image_once_a_round(
        self, make: Callable[..., Distiller], batch: int, N: int, sizes: Any
    ) -> None:
        pieces = [chunk.indices for chunk in make(batch_syn=batch, N=N)._chunks(generator("chunks"))]
        assert [len(piece) for piece in pieces] == sizes
        a_round = math.ceil(20 / batch)
        rounds = [torch.cat(pieces[first : first + a_round]) for first in range(0, N - a_round + 1, a_round)]
        assert all(sorted(used.tolist()) == list(range(20)) for used in rounds)
        assert len({tuple(used.tolist()) for used in rounds}) == len(rounds)

    def test_every_chunk_has_a_draw_of_its_own(self, make: Callable[..., Distiller]) -> None:
        chunks = make(families=("scale",), N=6)._chunks(generator("chunks"))
        draws = [chunk.draw for chunk in chunks if chunk.draw is not None]
        assert [len(draw.values["x"]) for draw in draws] == [len(chunk.indices) for chunk in chunks]
        assert len({float(draw.values["x"][0]) for draw in draws}) == 6


class TestSampling:
    def test_every_expert_comes_once_a_lap_and_laps_differ(self, make: Callable[..., Distiller]) -> None:
        distiller = make(N=1)
        laps = [tuple(distiller.step().expert for _ in range(3)) for _ in range(8)]
        assert all(sorted(lap) == [0, 1, 2] for lap in laps)
        assert len(set(laps)) > 2

    @pytest.mark.parametrize(("end", "bounds"), [("exclusive", (2, 3, 4)), ("inclusive", (2, 3, 3))])
    def test_starts_fill_the_range_as_it_grows(
        self, make: Callable[..., Distiller], end: str, bounds: tuple[int, ...]
    ) -> None:
        first, *_, last = bounds
        distiller = make(N=1, batch_syn=1, T_minus=1, T=first, T_plus=last, interval=20, range_end=end)
        for bound in bounds:
            starts = {distiller.step().start_epoch for _ in range(20)}
            assert starts == set(range(1, bound + (end == "inclusive")))

    def test_the_bound_is_recorded_as_it_grows(self, make: Callable[..., Distiller]) -> None:
        distiller = make(N=1)
        assert [distiller.step().upper for _ in range(7)] == [2, 2, 3, 3, 4, 4, 4]


class TestResuming:
    @pytest.fixture(
        params=[{"families": FAMILIES, "seed": 5}, EVERYTHING, {**EVERYTHING, **LOG}],
        ids=["hard", "everything", "everything log"],
    )
    def options(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        options: dict[str, Any] = request.param
        return options

    @pytest.mark.parametrize("split", [0, 1, 3, 5, 6])
    def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
        self, make: Callable[..., Distiller], options: dict[str, Any], split: int, tmp_path: Path
    ) -> None:
        whole, first = make(**options), make(**options)
        expected = [whole.step() for _ in range(6)]
        found = [first.step() for _ in range(split)]
        torch.save(first.state_dict(), tmp_path / "state.pt")
        resumed = make(**options)
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        found += [resumed.step() for _ in range(6 - split)]
        assert found == expected
        same_state(resumed, whole)
        assert resumed.displacement == whole.displacement > 0

    def test_the_state_is_a_copy_in_both_directions(
        self, make: Callable[..., Distiller], options: dict[str, Any]
    ) -> None:
        distiller, other = make(**options), make(**options)
        distiller.step()
        state = distiller.state_dict()
        kept = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
        other.load_state_dict(state)
        distiller.step()
        other.step()
        for name, value in kept.items():
            assert torch.equal(state[name], value) if isinstance(value, torch.Tensor) else state[name] == value

    def test_the_state_says_what_it_holds(self, make: Callable[..., Distiller]) -> None:
        always = {
            "images",
            "image_velocity",
            "alpha",
            "alpha_velocity",
            "iteration",
            "skipped",
            "not_finite",
            "floored",
        }
        assert make().state_dict().keys() == always
        distiller = make(**SOFT, ema_decay=0.5)
        state = distiller.state_dict()
        assert state.keys() == always | {"labels", "label_velocity", "ema"}
        distiller.step()
        state = distiller.state_dict()
        assert torch.equal(state["images"], distiller.images) and torch.equal(state["ema"], distiller.result_images)
        assert not torch.equal(state["images"], state["ema"])
        assert (state["labels"].shape, state["labels"].dtype) == ((20, 10), torch.float32)
        storages = [value.data_ptr() for value in state.values() if isinstance(value, torch.Tensor)]
        assert len(storages) == len(set(storages))  # safetensors writes no tensor twice

    def test_no_two_tensors_of_a_fresh_state_share_memory(self, make: Callable[..., Distiller]) -> None:
        tensors = [value for value in make(**EVERYTHING).state_dict().values() if isinstance(value, torch.Tensor)]
        assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors) == 5

    @pytest.mark.parametrize("options", [SOFT, {"ema_decay": 0.5}])
    def test_a_state_with_other_contents_is_refused(
        self, make: Callable[..., Distiller], options: dict[str, Any]
    ) -> None:
        for one, other in ((make(), make(**options)), (make(**options), make())):
            with pytest.raises(ConfigError, match=r"this state holds .*, the distillation .*; resume it with the sett"):
                one.load_state_dict(other.state_dict())

    def test_a_state_of_another_size_is_refused(self, make: Callable[..., Distiller]) -> None:
        with pytest.raises(ConfigError, match=r"holds images \[10, 1, 8, 8\], the distillation \[20, 1, 8, 8\]"):
            make().load_state_dict(make(ipc=1).state_dict())

    def test_the_seed_decides_every_bit(self, make: Callable[..., Distiller]) -> None:
        runs = [make(families=FAMILIES, seed=seed) for seed in (0, 0, 1)]
        for _ in range(3):
            losses = [run.step().loss for run in runs]
            assert losses[0] == losses[1] != losses[2]
        same_state(runs[0], runs[1])


class TestSkipping:
    def resumed_with(self, make: Callable[..., Distiller], **changed: Any) -> tuple[Distiller, Distiller]:
        """A distiller with momentum in all optimisers, and another that takes its state up with other settings."""
        one = make(**MOST)
        for _ in range(2):
            assert not one.step().skipped
        other = make(**{**MOST, **changed})
        other.load_state_dict(one.state_dict())
        return one, other

    def test_a_loss_above_the_threshold_touches_nothing_and_is_counted(self, make: Callable[..., Distiller]) -> None:
        before, distiller = self.resumed_with(make, max_matching_loss=1e-6)
        for count in (1, 2):
            done = distiller.step()
            assert done.skipped and done.finite and not done.floored
            assert done.loss > 1e-6
            assert (distiller.skipped, distiller.not_finite, distiller.iteration) == (count, 0, 2 + count)
        same_state(before, distiller, but=("iteration", "skipped"))

    def test_the_threshold_itself_is_accepted(self, make: Callable[..., Distiller]) -> None:
        loss = make().step().loss
        assert not make(max_matching_loss=loss).step().skipped
        assert make(max_matching_loss=math.nextafter(loss, 0)).step().skipped

    @pytest.mark.parametrize("alpha", [1e30, float("nan"), float("inf")])
    def test_a_loss_that_is_no_number_touches_nothing_and_is_counted_apart(
        self, make: Callable[..., Distiller], alpha: Any
    ) -> None:
        before = make(**MOST)
        before.step()
        state = {**before.state_dict(), "alpha": alpha}
        distiller = make(**MOST, max_matching_loss=1e300, alpha_floor=0.05)
        distiller.load_state_dict(state)
        done = distiller.step()
        assert not math.isfinite(done.loss)
        assert done.skipped and not done.finite and not done.floored
        assert (distiller.skipped, distiller.not_finite, distiller.floored) == (1, 1, 0)
        assert str(distiller.alpha) == str(alpha)
        same_state(before, distiller, but=("iteration", "skipped", "not_finite", "alpha"))

    @pytest.mark.parametrize("name", ["image_velocity", "label_velocity", "alpha_velocity"])
    def test_a_finite_loss_whose_update_would_overflow_touches_nothing_and_is_counted_apart(
        self, make: Callable[..., Distiller], name: str
    ) -> None:
        before, distiller = self.resumed_with(make, lr_alpha=1e10)
        value = before.state_dict()[name]
        huge = torch.full_like(value, 3e38) if isinstance(value, torch.Tensor) else 1e308
        distiller.load_state_dict({**before.state_dict(), name: huge})
        done = distiller.step()
        assert math.isfinite(done.loss)
        assert done.skipped and not done.finite
        assert (distiller.skipped, distiller.not_finite) == (1, 1)
        same_state(before, distiller, but=("iteration", "skipped", "not_finite", name))

    @pytest.mark.parametrize("alpha_init", [0.05, 10.0, 1e6, 1e20])
    def test_nothing_ever_becomes_infinite_or_no_number(
        self, make: Callable[..., Distiller], alpha_init: float
    ) -> None:
        distiller = make(**MOST, alpha_init=alpha_init, lr_pixel=1e4, lr_alpha=10.0, max_matching_loss=1e300)
        done = [distiller.step() for _ in range(6)]
        for value in distiller.state_dict().values():
            assert bool(torch.isfinite(torch.as_tensor(value)).all())
        assert distiller.not_finite == distiller.skipped == sum(not each.finite for each in done)
        assert distiller.not_finite > 0

    def test_skipping_changes_no_later_draw(self, make: Callable[..., Distiller]) -> None:
        accepted, skipping = make(), make(max_matching_loss=1e-6)
        for _ in range(6):
            one, other = accepted.step(), skipping.step()
            assert (one.expert, one.start_epoch, one.upper) == (other.expert, other.start_epoch, other.upper)
            assert other.skipped and not one.skipped


class TestAlpha:
    def test_without_a_learning_rate_it_stays(self, make: Callable[..., Distiller]) -> None:
        distiller = make(lr_alpha=0.0)
        for _ in range(3):
            distiller.step()
        assert distiller.alpha == 0.05

    @pytest.mark.parametrize("alpha", [1e-3, 0.5])
    def test_moves_the_way_that_lowers_the_loss(self, make: Callable[..., Distiller], alpha: float) -> None:
        # One start, the whole set every step and no learning of images: the loss depends on α and the expert alone.
        options = {"lr_pixel": 1e-12, "T": 1, "T_plus": 1, "batch_syn": 20, "lr_alpha": 1e-6, "momentum_alpha": 0.0}
        distiller = make(**options, alpha_init=alpha)
        losses: dict[int, list[float]] = {}
        for _ in range(4 * 3):
            done = distiller.step()
            losses.setdefault(done.expert, []).append(done.loss)
        assert distiller.alpha != alpha
        for path in losses.values():
            assert path[-1] < path[0]


DOWN = {"alpha_init": 0.5, "T": 1, "T_plus": 1, "batch_syn": 20, "momentum_alpha": 0.0, "lr_pixel": 1e-12}


class TestAlphaFloor:
    def test_stops_alpha_and_counts_every_stop(self, make: Callable[..., Distiller]) -> None:
        # Steps this long overshoot, so that α falls.
        free, floored = make(**DOWN, lr_alpha=1e-3), make(**DOWN, lr_alpha=1e-3, alpha_floor=0.49)
        seen = []
        for _ in range(6):
            free.step()
            seen.append(floored.step())
            assert floored.alpha >= 0.49
        assert free.alpha < 0.49
        assert floored.floored == sum(done.floored for done in seen) > 0
        assert floored.alpha == 0.49 or not seen[-1].floored
        assert free.floored == floored.skipped == 0

    def test_without_one_alpha_may_turn_negative(self, make: Callable[..., Distiller]) -> None:
        distiller = make(**DOWN, lr_alpha=1.0)
        distiller.step()
        assert distiller.alpha < 0
        assert distiller.floored == 0


class TestLogarithm:
    def test_alpha_stays_positive_where_it_would_turn_negative(self, make: Callable[..., Distiller]) -> None:
        plain, logarithm = make(**DOWN, lr_alpha=1.0), make(**DOWN, lr_alpha=1.0, alpha_update="log")
        for distiller in (plain, logarithm):
            distiller.step()
        assert plain.alpha < 0 < logarithm.alpha < 0.5

    def test_its_gradient_is_that_of_alpha_by_the_chain_rule(self, double: Callable[..., Distiller]) -> None:
        options = {**DOWN, "lr_alpha": 1e-4}
        plain, logarithm = double(**options), double(**options, alpha_update="log")
        for distiller in (plain, logarithm):
            distiller.step()
        along_alpha, along_log = ((distiller.state_dict()["alpha_velocity"]) for distiller in (plain, logarithm))
        assert along_log == pytest.approx(0.5 * along_alpha, rel=1e-12)
        assert math.log(logarithm.alpha / 0.5) == pytest.approx(-1e-4 * along_log, rel=1e-9)

    def test_its_rate_means_the_same_at_every_scale(self, double: Callable[..., Distiller]) -> None:
        """A gradient of a given size in log α changes α by the same ratio, whatever α is."""
        ratios = []
        for alpha in (0.01, 0.5):
            distiller = double(**{**DOWN, "alpha_init": alpha}, lr_alpha=1e-2, alpha_update="log")
            distiller.step()
            ratios.append(math.log(distiller.alpha / alpha) / distiller.state_dict()["alpha_velocity"])
        assert ratios == pytest.approx([-1e-2, -1e-2], rel=1e-9)

    def test_an_alpha_that_would_overflow_is_skipped(self, make: Callable[..., Distiller]) -> None:
        options = {**DOWN, "momentum_alpha": 0.5}
        distiller = make(**options, lr_alpha=1.0, alpha_update="log")
        distiller.load_state_dict({**distiller.state_dict(), "alpha_velocity": -1e4})
        done = distiller.step()
        assert math.isfinite(done.loss) and not done.finite
        assert distiller.alpha == pytest.approx(0.5)

    def test_the_state_has_alpha_for_its_readers_and_what_is_learned(self, make: Callable[..., Distiller]) -> None:
        distiller = make(alpha_update="log", lr_alpha=1e-2)
        distiller.step()
        state = distiller.state_dict()
        assert state["alpha"] == distiller.alpha == pytest.approx(math.exp(state["log_alpha"]), rel=1e-15)
        with pytest.raises(ConfigError, match="resume it with the settings that it was made with"):
            make().load_state_dict(state)


class TestAverage:
    def test_is_its_closed_form(self, double: Callable[..., Distiller]) -> None:
        # ema_n = d^n x_0 + (1 − d) Σ_k d^(n−k) x_k
        distiller, decay, images = double(ema_decay=0.7), 0.7, []
        for _ in range(5):
            distiller.step()
            images.append(distiller.images)
        expected = decay**5 * distiller.initial_images
        for place, each in enumerate(images, start=1):
            expected = expected + (1 - decay) * decay ** (5 - place) * each
        assert relative_error(distiller.result_images, expected) < 1e-12

    def test_does_not_change_what_is_learned(self, make: Callable[..., Distiller]) -> None:
        plain, averaged = make(), make(ema_decay=0.9)
        for _ in range(3):
            assert plain.step() == averaged.step()
        assert torch.equal(plain.images, averaged.images)
        assert torch.equal(plain.result_images, plain.images)
        assert not torch.equal(averaged.result_images, averaged.images)

    def test_starts_at_the_initial_images(self, make: Callable[..., Distiller]) -> None:
        distiller = make(ema_decay=0.9)
        assert torch.equal(distiller.result_images, distiller.initial_images)


class TestLabels:
    def test_hard_ones_stay(self, make: Callable[..., Distiller]) -> None:
        distiller = make()
        distiller.step()
        assert torch.equal(distiller.labels, default_order_labels(2, 10))

    def test_learned_ones_help(self, make: Callable[..., Distiller]) -> None:
        # No learning of images or α, one start: the loss depends on the labels and the expert alone.
        distiller = make(**SOFT, lr_pixel=1e-12, lr_alpha=0.0, T=1, T_plus=1, batch_syn=20)
        losses: dict[int, list[float]] = {}
        for _ in range(4 * 3):
            done = distiller.step()
            losses.setdefault(done.expert, []).append(done.loss)
        for path in losses.values():
            assert path[-1] < path[0]

    @pytest.mark.parametrize(
        ("mode", "labels"), [("hard", torch.zeros(20, 10)), ("soft", default_order_labels(2, 10))], ids=["hard", "soft"]
    )
    def test_of_the_other_kind_are_refused(self, make: Callable[..., Distiller], mode: str, labels: Any) -> None:
        with pytest.raises(ConfigError, match=f"label_mode {mode} does not go with labels of torch"):
            make(label_mode=mode, labels=labels)


class TestLearning:
    def test_the_loss_falls(self, make: Callable[..., Distiller]) -> None:
        distiller = make(ipc=5, N=10, T=1, T_plus=1, lr_pixel=100.0, batch_syn=50, alpha_init=0.05)
        losses = [distiller.step().loss for _ in range(30)]
        assert distiller.skipped == 0
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])

    def test_displacement_is_the_root_mean_square_way_of_the_images(self, make: Callable[..., Distiller]) -> None:
        distiller = make()
        assert distiller.displacement == 0
        moved = distiller.images + torch.tensor([3.0, -4.0]).repeat(10)[:, None, None, None]
        distiller.load_state_dict({**distiller.state_dict(), "images": moved})
        assert distiller.displacement == pytest.approx(12.5**0.5)

    def test_what_every_method_learns_it_learns_as_torchs_sgd_does(self) -> None:
        draws = generator("learned")
        values = torch.randn(3, 4, dtype=torch.float64, generator=draws)
        learned, leaf = Learned.start(values), values.clone().requires_grad_()
        optimizer = torch.optim.SGD([leaf], lr=0.3, momentum=0.7)
        for _ in range(4):
            leaf.grad = torch.randn(3, 4, dtype=torch.float64, generator=draws)
            before = learned.values.clone()
            following = learned.after(leaf.grad, lr=0.3, momentum=0.7)
            optimizer.step()
            torch.testing.assert_close(following.values, leaf.detach(), rtol=1e-14, atol=1e-14)
            assert torch.equal(learned.values, before)
            learned = following
        assert learned.finite and not learned.after(torch.full((3, 4), math.nan), lr=1.0, momentum=0.0).finite

    def test_the_images_given_are_left_alone(self, make: Callable[..., Distiller], small_digits: ImageDataset) -> None:
        images = real_images(small_digits, 2, 0)
        before = images.clone()
        make(images=images).step()
        assert torch.equal(images, before)

    def test_one_label_an_image_is_required(self, make: Callable[..., Distiller]) -> None:
        with pytest.raises(ConfigError, match="one label an image: 19 images, 20 labels"):
            make(images=torch.zeros(19, 1, 8, 8))

    def test_float64_images_make_the_whole_computation_float64(
        self, make: Callable[..., Distiller], small_digits: ImageDataset
    ) -> None:
        distiller = make(images=real_images(small_digits, 2, 0).double())
        single = make()
        losses = [(distiller.step().loss, single.step().loss) for _ in range(2)]
        assert distiller.images.dtype == torch.float64
        for double, loss in losses:
            assert double == pytest.approx(loss, rel=1e-3)
            assert double != loss
