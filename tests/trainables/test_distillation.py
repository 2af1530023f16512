"""The distiller: a step written out by hand, resumed equals uninterrupted, and what a skipped step leaves alone."""

import math

import pytest
import torch
from references import relative_error

from trainables.augmentation import Augmentation
from trainables.config import DistillationConfig
from trainables.distillation import Distiller
from trainables.errors import ConfigError
from trainables.initialization import real_images
from trainables.labels import default_order_labels
from trainables.matching import Chunk, matching_gradient
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


@pytest.fixture
def make(small_digits, small_network, trajectories):
    def build(*, families=(), seed=0, images=None, **changed):
        config = DistillationConfig(**{**SETTINGS, **changed})
        return Distiller(
            config,
            network=small_network,
            trajectories=trajectories,
            images=real_images(small_digits, config.ipc, 0) if images is None else images,
            labels=default_order_labels(config.ipc, 10),
            augmentation=Augmentation(families=families),
            seed=seed,
        )

    return build


def same_state(one, other, but=()):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name not in but:
            equal = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            assert equal, name


def reference_chunks(draws, images, batch, N, augmentation):
    """METHOD §2, step 3: pop pieces of a permutation from the end, and permute again when there is none."""
    pieces, chunks = [], []
    while len(chunks) < N:
        if not pieces:
            order = torch.randperm(images, generator=draws).tolist()
            pieces = [order[first : first + batch] for first in range(0, images, batch)]
        indices = torch.tensor(pieces.pop())
        chunks.append(Chunk(indices, augmentation.draw(len(indices), 8, draws)))
    return chunks


def reference_run(distiller, iterations):
    """METHOD §2 with torch.optim.SGD for images and α; the images, α, and each iteration's expert, start and loss."""
    config, trajectories = distiller.config, distiller.trajectories
    images = distiller.initial_images.clone()
    alpha = torch.tensor(config.alpha_init, dtype=torch.float64)
    optimizers = [
        torch.optim.SGD([images], lr=config.lr_pixel, momentum=config.momentum_pixel),
        torch.optim.SGD([alpha], lr=config.lr_alpha, momentum=config.momentum_alpha),
    ]
    done = []
    for iteration in range(iterations):
        lap = iteration // len(trajectories)
        order = torch.randperm(len(trajectories), generator=generator(distiller.seed, "expert order", lap)).tolist()
        expert = order[iteration % len(trajectories)]
        draws = generator(distiller.seed, "distillation", iteration)
        upper = min(config.T + iteration // config.interval, config.T_plus)
        start = config.T_minus + int(torch.randint(upper - config.T_minus, (), generator=draws))
        gradient = matching_gradient(
            distiller.network,
            start=trajectories.snapshot(expert, start),
            target=trajectories.snapshot(expert, start + config.M),
            images=images,
            labels=default_order_labels(config.ipc, 10),
            alpha=float(alpha),
            chunks=reference_chunks(draws, len(images), config.batch_syn, config.N, distiller.augmentation),
            augmentation=distiller.augmentation,
        )
        done.append((expert, start, upper, gradient.loss))
        if gradient.loss <= config.max_matching_loss:
            images.grad, alpha.grad = gradient.images, torch.tensor(gradient.alpha, dtype=torch.float64)
            for optimizer in optimizers:
                optimizer.step()
    return images, float(alpha), done


class TestAgainstAReference:
    @pytest.mark.parametrize("families", [(), FAMILIES], ids=["plain", "augmented"])
    def test_iterations_are_those_of_torchs_sgd_on_the_exact_gradient(self, make, families):
        distiller = make(families=families, seed=3)
        images, alpha, expected = reference_run(distiller, 7)
        for (expert, start, upper, loss), found in zip(expected, [distiller.step() for _ in range(7)], strict=True):
            assert (found.expert, found.start_epoch, found.upper, found.skipped) == (expert, start, upper, False)
            assert found.loss == pytest.approx(loss, rel=1e-4)
        way = images - distiller.initial_images
        assert relative_error(distiller.images - distiller.initial_images, way) < 1e-3
        assert float(way.abs().max()) > 0.01
        assert distiller.alpha - 0.05 == pytest.approx(alpha - 0.05, rel=1e-3)

    def test_the_first_accepted_step_by_hand(self, make):
        distiller = make()
        before = distiller.images.clone()
        draws = generator(0, "distillation", 0)
        expert = int(torch.randperm(3, generator=generator(0, "expert order", 0))[0])
        start = int(torch.randint(2, (), generator=draws))
        gradient = matching_gradient(
            distiller.network,
            start=distiller.trajectories.snapshot(expert, start),
            target=distiller.trajectories.snapshot(expert, start + 2),
            images=before,
            labels=distiller.labels,
            alpha=0.05,
            chunks=reference_chunks(draws, 20, 8, 5, Augmentation()),
            augmentation=Augmentation(),
        )
        distiller.step()
        assert relative_error(distiller.images, before - 50 * gradient.images) < 1e-6
        assert distiller.alpha == pytest.approx(0.05 - 1e-3 * gradient.alpha, rel=1e-12)


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
    def test_the_ragged_piece_comes_first_and_every_image_once_a_round(self, make, batch, N, sizes):
        pieces = [chunk.indices for chunk in make(batch_syn=batch, N=N)._chunks(generator("chunks"))]
        assert [len(piece) for piece in pieces] == sizes
        a_round = math.ceil(20 / batch)
        rounds = [torch.cat(pieces[first : first + a_round]) for first in range(0, N - a_round + 1, a_round)]
        assert all(sorted(used.tolist()) == list(range(20)) for used in rounds)
        assert len({tuple(used.tolist()) for used in rounds}) == len(rounds)

    def test_every_chunk_has_a_draw_of_its_own(self, make):
        chunks = make(families=("scale",), N=6)._chunks(generator("chunks"))
        assert all(len(chunk.draw.values["x"]) == len(chunk.indices) for chunk in chunks)
        assert len({float(chunk.draw.values["x"][0]) for chunk in chunks}) == 6


class TestSampling:
    def test_every_expert_comes_once_a_lap_and_laps_differ(self, make):
        distiller = make(N=1)
        laps = [tuple(distiller.step().expert for _ in range(3)) for _ in range(8)]
        assert all(sorted(lap) == [0, 1, 2] for lap in laps)
        assert len(set(laps)) > 2

    @pytest.mark.parametrize(("end", "bounds"), [("exclusive", (2, 3, 4)), ("inclusive", (2, 3, 3))])
    def test_starts_fill_the_range_as_it_grows(self, make, end, bounds):
        first, *_, last = bounds
        distiller = make(N=1, batch_syn=1, T_minus=1, T=first, T_plus=last, interval=20, range_end=end)
        for bound in bounds:
            starts = {distiller.step().start_epoch for _ in range(20)}
            assert starts == set(range(1, bound + (end == "inclusive")))

    def test_the_bound_is_recorded_as_it_grows(self, make):
        distiller = make(N=1)
        assert [distiller.step().upper for _ in range(7)] == [2, 2, 3, 3, 4, 4, 4]


class TestResuming:
    @pytest.fixture
    def options(self):
        return {"families": FAMILIES, "seed": 5}

    @pytest.mark.parametrize("split", range(7))
    def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(self, make, options, split, tmp_path):
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

    def test_the_state_is_a_copy_in_both_directions(self, make, options):
        distiller, other = make(**options), make(**options)
        distiller.step()
        state = distiller.state_dict()
        kept = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
        other.load_state_dict(state)
        distiller.step()
        other.step()
        for name, value in kept.items():
            assert torch.equal(state[name], value) if isinstance(value, torch.Tensor) else state[name] == value

    def test_a_state_of_another_size_is_refused(self, make):
        with pytest.raises(ConfigError, match=r"holds images \[10, 1, 8, 8\], the distillation \[20, 1, 8, 8\]"):
            make().load_state_dict(make(ipc=1).state_dict())

    def test_the_seed_decides_every_bit(self, make):
        runs = [make(families=FAMILIES, seed=seed) for seed in (0, 0, 1)]
        for _ in range(3):
            losses = [run.step().loss for run in runs]
            assert losses[0] == losses[1] != losses[2]
        same_state(runs[0], runs[1])


class TestSkipping:
    def resumed_with(self, make, **changed):
        """A distiller with momentum in both optimisers, and another that takes its state up with other settings."""
        one = make()
        for _ in range(2):
            assert not one.step().skipped
        other = make(**changed)
        other.load_state_dict(one.state_dict())
        return one, other

    def test_a_loss_above_the_threshold_touches_nothing_and_is_counted(self, make):
        before, distiller = self.resumed_with(make, max_matching_loss=1e-6)
        for count in (1, 2):
            done = distiller.step()
            assert done.skipped
            assert done.loss > 1e-6
            assert (distiller.skipped, distiller.iteration) == (count, 2 + count)
        same_state(before, distiller, but=("iteration", "skipped"))

    def test_the_threshold_itself_is_accepted(self, make):
        loss = make().step().loss
        assert not make(max_matching_loss=loss).step().skipped
        assert make(max_matching_loss=math.nextafter(loss, 0)).step().skipped

    @pytest.mark.parametrize("alpha", [1e30, float("nan"), float("inf")])
    def test_a_loss_that_is_no_number_touches_nothing_and_is_counted(self, make, alpha):
        before = make()
        before.step()
        state = {**before.state_dict(), "alpha": alpha}
        distiller = make(max_matching_loss=1e300)
        distiller.load_state_dict(state)
        done = distiller.step()
        assert not math.isfinite(done.loss)
        assert done.skipped
        assert distiller.skipped == 1
        assert str(distiller.alpha) == str(alpha)
        same_state(before, distiller, but=("iteration", "skipped", "alpha"))

    def test_skipping_changes_no_later_draw(self, make):
        accepted, skipping = make(), make(max_matching_loss=1e-6)
        for _ in range(6):
            one, other = accepted.step(), skipping.step()
            assert (one.expert, one.start_epoch, one.upper) == (other.expert, other.start_epoch, other.upper)
            assert other.skipped and not one.skipped


class TestAlpha:
    def test_without_a_learning_rate_it_stays(self, make):
        distiller = make(lr_alpha=0.0)
        for _ in range(3):
            distiller.step()
        assert distiller.alpha == 0.05

    @pytest.mark.parametrize("alpha", [1e-3, 0.5])
    def test_moves_the_way_that_lowers_the_loss(self, make, alpha):
        # One start, the whole set every step and no learning of images: the loss depends on α and the expert alone.
        options = {"lr_pixel": 1e-12, "T": 1, "T_plus": 1, "batch_syn": 20, "lr_alpha": 1e-6, "momentum_alpha": 0.0}
        distiller = make(**options, alpha_init=alpha)
        losses = {}
        for _ in range(4 * 3):
            done = distiller.step()
            losses.setdefault(done.expert, []).append(done.loss)
        assert distiller.alpha != alpha
        for path in losses.values():
            assert path[-1] < path[0]


class TestLearning:
    def test_the_loss_falls(self, make):
        distiller = make(ipc=5, N=10, T=1, T_plus=1, lr_pixel=100.0, batch_syn=50, alpha_init=0.05)
        losses = [distiller.step().loss for _ in range(30)]
        assert distiller.skipped == 0
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])

    def test_displacement_is_the_root_mean_square_way_of_the_images(self, make):
        distiller = make()
        assert distiller.displacement == 0
        distiller.images += torch.tensor([3.0, -4.0]).repeat(10)[:, None, None, None]
        assert distiller.displacement == pytest.approx(12.5**0.5)

    def test_the_images_given_are_left_alone(self, make, small_digits):
        images = real_images(small_digits, 2, 0)
        before = images.clone()
        make(images=images).step()
        assert torch.equal(images, before)

    def test_one_label_an_image_is_required(self, make):
        with pytest.raises(ConfigError, match="one label an image: 19 images, 20 labels"):
            make(images=torch.zeros(19, 1, 8, 8))

    def test_float64_images_make_the_whole_computation_float64(self, make, small_digits):
        distiller = make(images=real_images(small_digits, 2, 0).double())
        single = make()
        losses = [(distiller.step().loss, single.step().loss) for _ in range(2)]
        assert distiller.images.dtype == torch.float64
        for double, loss in losses:
            assert double == pytest.approx(loss, rel=1e-3)
            assert double != loss
