"""Experts against torch.optim and a slow GSAM written from METHOD §1 on lists of parameters."""

import math

import pytest
import torch
import torch.nn.functional as F
from references import module_of, relative_error, vector_of

from trainables.actor import ExpertActor, ExpertWork
from trainables.augmentation import Augmentation
from trainables.config import ExpertRecipe
from trainables.experts import DivergedExpert, ExpertState, ExpertTrainer, gsam_direction, sam_perturbation
from trainables.networks import ConvNet
from trainables.seeding import generator
from trainables.trajectories import TrajectoryStore

NETWORK = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=6)
CPU = torch.device("cpu")
# ρ and α far above the usual ones, so that a wrong perturbation or a wrong projection is no rounding error.
STRONG = {"expert_lr": 0.05, "expert_batch_size": 200, "sam_rho": 0.5, "gsam_alpha": 0.6}


@pytest.fixture
def trainer(small_digits):
    def build(*, augmentation=(), seed=7, **recipe):
        return ExpertTrainer(
            dataset=small_digits,
            network=NETWORK,
            recipe=ExpertRecipe(**{**STRONG, **recipe}),
            augmentation=Augmentation(families=augmentation),
            seed=seed,
            device=CPU,
        )

    return build


def trained(trainer, expert, epochs, state=None):
    states = [state or trainer.start(expert)]
    for _ in range(epochs):
        states.append(trainer.train_epoch(expert, states[-1]))
    return states


def gradients(module, images, labels):
    loss = F.cross_entropy(module(images), labels)
    return [gradient.clone() for gradient in torch.autograd.grad(loss, list(module.parameters()))]


def norm_of(tensors):
    return math.sqrt(sum(float((tensor**2).sum()) for tensor in tensors))


@torch.no_grad()
def add_to(parameters, tensors):
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.add_(tensor)


def gsam_step(module, optimizer, images, labels, *, rho, alpha, adaptive):
    """METHOD §1, steps 1 to 5, a parameter at a time."""
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


def sgd_step(module, optimizer, images, labels):
    optimizer.zero_grad()
    F.cross_entropy(module(images), labels).backward()
    optimizer.step()


def reference_epochs(trainer, expert, epochs, step):
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


def moved_alike(trainer, expert, epochs, step):
    """How far the trainer ends from the reference, relative to the way it went."""
    states = trained(trainer, expert, epochs)
    start = states[0].theta.double()
    return relative_error(states[-1].theta.double() - start, reference_epochs(trainer, expert, epochs, step) - start)


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
    def test_gsam(self, trainer, adaptive, options):
        subject = trainer(sam_adaptive=adaptive, **options)

        def step(*batch):
            gsam_step(*batch, rho=0.5, alpha=0.6, adaptive=adaptive)

        assert moved_alike(subject, 3, 1, step) < 1e-4

    def test_sgd(self, trainer):
        subject = trainer(expert_optimizer="sgd", expert_momentum=0.9, expert_weight_decay=5e-3)
        assert moved_alike(subject, 0, 3, sgd_step) < 1e-4

    def test_the_two_optimizers_differ_by_more_than_the_tolerance(self, trainer):
        assert moved_alike(trainer(), 0, 2, sgd_step) > 0.1


class TestPerturbation:
    def vectors(self):
        draws = generator("perturbation")
        theta, gradient = torch.randn(2, 300, dtype=torch.float64, generator=draws)
        theta[::7] = 0
        return theta, gradient

    def test_plain_sam_goes_rho_along_the_gradient(self):
        theta, gradient = self.vectors()
        e = sam_perturbation(theta, gradient, 0.3, adaptive=False)
        assert float(e.norm()) == pytest.approx(0.3, rel=1e-10)
        assert float(F.cosine_similarity(e, gradient, dim=0)) == pytest.approx(1, rel=1e-12)

    def test_asam_goes_rho_in_units_of_the_parameters_and_leaves_zeros_alone(self):
        theta, gradient = self.vectors()
        e = sam_perturbation(theta, gradient, 0.3, adaptive=True)
        assert torch.equal(e == 0, theta == 0)
        moving = theta != 0
        assert float((e[moving] / theta[moving].abs()).norm()) == pytest.approx(0.3, rel=1e-10)

    def test_asam_leaves_the_initial_biases_of_the_norms_unperturbed(self):
        theta = NETWORK.initial(generator("asam"))
        e = NETWORK.unflatten(sam_perturbation(theta, torch.ones_like(theta), 0.3, adaptive=True))
        assert [name for name, values in e.items() if not values.any()] == ["norm0.bias", "norm1.bias"]

    @pytest.mark.parametrize("adaptive", [False, True])
    def test_a_vanishing_gradient_gives_no_perturbation(self, adaptive):
        theta, gradient = self.vectors()
        assert not sam_perturbation(theta, 0 * gradient, 0.3, adaptive=adaptive).any()


class TestGsamDirection:
    def vectors(self):
        return torch.randn(2, 300, dtype=torch.float64, generator=generator("direction"))

    def test_what_it_takes_away_is_the_part_of_g_orthogonal_to_the_perturbed_gradient(self):
        gradient, perturbed = self.vectors()
        v = (perturbed - gsam_direction(gradient, perturbed, 0.3)) / 0.3
        assert abs(float(v @ perturbed)) < 1e-12 * float(v.norm() * perturbed.norm())
        # The rest of g is a multiple of g_s.
        assert abs(float(F.cosine_similarity(gradient - v, perturbed, dim=0))) == pytest.approx(1, rel=1e-12)

    def test_alpha_0_is_sam_and_parallel_gradients_leave_nothing_to_take_away(self):
        gradient, perturbed = self.vectors()
        assert torch.equal(gsam_direction(gradient, perturbed, 0.0), perturbed)
        assert relative_error(gsam_direction(3 * perturbed, perturbed, 0.7), perturbed) < 1e-14

    def test_a_vanishing_perturbed_gradient_divides_nothing_by_zero(self):
        gradient, perturbed = self.vectors()
        assert torch.equal(gsam_direction(gradient, 0 * perturbed, 0.5), -0.5 * gradient)


class TestEpochs:
    def test_the_same_seed_and_number_give_the_same_bits_and_any_other_different_ones(self, trainer):
        ends = {
            (seed, expert): trained(trainer(seed=seed, augmentation=("flip",)), expert, 2)[-1].theta
            for seed, expert in ((7, 0), (7, 1), (8, 0))
        }
        again = trained(trainer(seed=7, augmentation=("flip",)), 0, 2)[-1]
        assert torch.equal(again.theta, ends[7, 0])
        assert not torch.equal(ends[7, 1], ends[7, 0])
        assert not torch.equal(ends[8, 0], ends[7, 0])

    def test_epochs_have_batches_of_their_own(self, trainer):
        subject = trainer()
        state = subject.start(0)
        later = ExpertState(state.theta, state.velocity, 1, state.loss)
        assert not torch.equal(subject.train_epoch(0, state).theta, subject.train_epoch(0, later).theta)

    def test_the_state_given_is_left_as_it_was(self, trainer):
        states, copies = [trainer(expert_momentum=0.9).start(0)], []
        for _ in range(3):
            copies.append((states[-1].theta.clone(), states[-1].velocity.clone()))
            states.append(trainer(expert_momentum=0.9).train_epoch(0, states[-1]))
        for state, (theta, velocity) in zip(states, copies, strict=False):
            assert torch.equal(state.theta, theta)
            assert torch.equal(state.velocity, velocity)
        assert len({state.theta.data_ptr() for state in states}) == len(states)
        assert not any(state.theta.requires_grad for state in states)

    def test_the_start_is_the_networks_own_distribution_and_counts_no_epoch(self, trainer):
        state = trainer().start(4)
        assert torch.equal(state.theta, NETWORK.initial(generator(7, "expert", 4, "initial")))
        assert (state.epoch, float(state.velocity.norm())) == (0, 0)
        assert math.isnan(state.loss)

    @pytest.mark.parametrize("batch_size", [1077, 1000, 2000])
    def test_the_loss_is_the_mean_over_all_images_also_those_of_the_last_partial_batch(self, trainer, batch_size):
        subject = trainer(expert_batch_size=batch_size, expert_lr=1e-12)
        start = subject.start(0)
        logits = NETWORK.logits(start.theta, subject.dataset.normalized("train"))
        expected = float(F.cross_entropy(logits, subject.dataset.labels("train")))
        assert subject.train_epoch(0, start).loss == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("optimizer", ["gsam", "sgd"])
    def test_divergence_names_expert_seed_and_epoch(self, trainer, optimizer):
        subject = trainer(expert_lr=1e30, expert_optimizer=optimizer)
        with pytest.raises(
            DivergedExpert, match=r"expert 3 \(seed 7\) diverged in epoch 1: .*lower expert_lr \(1e\+30\)"
        ):
            subject.train_epoch(3, subject.start(3))

    def test_divergence_names_the_epoch_it_happened_in(self, trainer):
        subject = trainer()
        state = trained(subject, 0, 2)[-1]
        with pytest.raises(DivergedExpert, match="diverged in epoch 3"):
            subject.train_epoch(0, ExpertState(state.theta * float("nan"), state.velocity, state.epoch, state.loss))


class TestExtending:
    def test_five_epochs_are_three_and_two_through_the_store(self, trainer, tmp_path):
        subject = trainer(augmentation=("crop", "flip"))
        whole = trained(subject, 2, 5)
        store = TrajectoryStore(tmp_path, {"test": "extending"}, NETWORK)
        store.record({2: store.write(2, [s.theta for s in whole[:4]], [s.loss for s in whole[1:4]])})
        snapshots, losses = store.load_last(2)
        assert losses == [state.loss for state in whole[1:4]]
        resumed = ExpertState(snapshots[-1], torch.zeros_like(snapshots[-1]), len(losses), losses[-1])
        for state, expected in zip(trained(subject, 2, 2, resumed), whole[3:], strict=True):
            assert torch.equal(state.theta, expected.theta)
            assert (state.epoch, state.loss) == (expected.epoch, expected.loss)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_an_actor_extends_a_file_bit_for_bit(self, trainer, tmp_path, digits_path, momentum):
        subject = trainer(expert_momentum=momentum)
        work = ExpertWork(
            dataset=digits_path,
            store=tmp_path,
            identity={"test": "actor"},
            network=NETWORK,
            recipe=subject.recipe,
            augmentation=subject.augmentation,
            seed=subject.seed,
            epochs=4,
            device="cpu",
        )
        store = TrajectoryStore(tmp_path, work.identity, NETWORK)
        for epochs, extend, first in ((2, False, 0), (4, True, 2 if momentum == 0 else 0)):
            actor = ExpertActor(work)
            done = actor.begin(1, extend)
            assert done == first
            while done < epochs:
                done = actor.train_epoch(1)
            store.record({1: actor.finish(1)})
        whole = trained(subject, 1, 4)
        snapshots, losses = store.load_last(1)
        assert losses == [state.loss for state in whole[1:]]
        assert all(torch.equal(one, state.theta) for one, state in zip(snapshots, whole, strict=True))


def test_experts_learn_the_digits(trainer):
    subject = trainer(expert_lr=0.1, expert_batch_size=64, sam_rho=0.01, gsam_alpha=0.3)
    theta = trained(subject, 0, 6)[-1].theta
    predicted = module_of(NETWORK, theta)(subject.dataset.normalized("test")).argmax(dim=1)
    assert float((predicted == subject.dataset.labels("test")).double().mean()) > 0.8
