"""The gradients of the matching loss: against an unrolled loop, and against finite differences, in float64."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.references import module_of, relative_error
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Chunk, Matcher, MatchingGradient
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

IMAGES, CLASSES = 7, 3


def network_of(depth: int) -> ConvNet:
    return ConvNet(channels=2, image_size=8, classes=CLASSES, depth=depth, width=4)


def random_chunks(N: int, batch: int, augmentation: Augmentation, draws: torch.Generator) -> list[Chunk]:
    """N steps over pieces of ever new permutations of the images; the last piece of each may be smaller."""
    chunks: list[Chunk] = []
    while len(chunks) < N:
        for indices in torch.randperm(IMAGES, generator=draws).split(batch):
            chunks.append(Chunk(indices, augmentation.draw(len(indices), 8, draws)))
    return chunks[:N]


def problem(
    *,
    depth: int = 1,
    N: int = 5,
    batch: int = 3,
    families: tuple[str, ...] = (),
    alpha: float = 0.05,
    seed: int | str = 0,
    dtype: torch.dtype = torch.float64,
    soft: bool = False,
) -> dict[str, Any]:
    """Arguments of `matching_gradient`: two random networks, random images, every label at least once."""
    network, draws = network_of(depth), generator("matching", seed)
    augmentation = Augmentation(families=families)
    start, target = (network.initial(draws).to(dtype) for _ in range(2))
    return {
        "network": network,
        "start": start,
        "target": start + 0.1 * (target - start),
        "images": torch.randn(IMAGES, 2, 8, 8, generator=draws).to(dtype),
        "labels": 2 * torch.randn(IMAGES, CLASSES, generator=draws).to(dtype)
        if soft
        else torch.arange(IMAGES) % CLASSES,
        "alpha": alpha,
        "chunks": random_chunks(N, batch, augmentation, draws),
        "augmentation": augmentation,
    }


def matching_gradient(
    *,
    network: ConvNet,
    augmentation: Augmentation,
    method: str = "exact",
    micro_batch: int | None = None,
    kept_steps: int = 0,
    precision: str = "fp32",
    **arguments: Any,
) -> MatchingGradient:
    step = InnerStep(network, precision=precision, micro_batch=micro_batch)
    return Matcher(step, augmentation, method=method, kept_steps=kept_steps)(**arguments)


def unrolled(
    *,
    network: ConvNet,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    alpha: float,
    chunks: list[Chunk],
    augmentation: Augmentation,
) -> tuple[Any, ...]:
    """L, ∂L/∂x, ∂L/∂α and, for soft labels, ∂L/∂ logits by autograd through the whole loop, all its graphs kept."""
    images = images.clone().requires_grad_()
    soft = labels.is_floating_point()
    labels = labels.clone().requires_grad_(soft)
    rate = torch.tensor(alpha, dtype=start.dtype, requires_grad=True)
    theta = start.clone().requires_grad_()
    for chunk in chunks:
        logits = network.logits(theta, augmentation.apply(images[chunk.indices], chunk.draw))
        target_labels = F.softmax(labels[chunk.indices], dim=1) if soft else labels[chunk.indices]
        # docs/method.md, "Distillation", step 3: soft cross-entropy, mean over the batch.
        loss = F.cross_entropy(logits, target_labels)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - rate * gradient
    loss = (theta - target).square().sum() / (start - target).square().sum()
    return loss.item(), *torch.autograd.grad(loss, (images, rate, labels) if soft else (images, rate))


def loss_at(arguments: dict[str, Any], **changed: Any) -> float:
    return matching_gradient(**{**arguments, **changed}).loss


def loss_moved(arguments: dict[str, Any], name: str, direction: Tensor, step: float) -> float:
    """Return the loss where one of the arguments is moved that far along a direction."""
    return loss_at(arguments, **{name: arguments[name] + step * direction})


def central_difference(function: Callable[[float], float], step: float) -> float:
    """Derivative of a scalar function at 0, of fourth order in the step."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def agrees_with_the_unrolled_loop(arguments: dict[str, Any], **options: Any) -> None:
    found = matching_gradient(**arguments, **options)
    loss, images, alpha, *labels = unrolled(**arguments)
    assert math.isclose(found.loss, loss, rel_tol=1e-12)
    assert relative_error(found.images, images) <= 1e-10
    assert relative_error(found.alpha, alpha) <= 1e-10
    if labels:
        assert relative_error(found.labels, labels[0]) <= 1e-10
    else:
        assert found.labels is None


class TestAgainstTheUnrolledLoop:
    @settings(deadline=None, max_examples=60)
    @given(
        depth=st.integers(1, 2),
        N=st.integers(1, 12),
        batch=st.integers(1, IMAGES + 2),
        families=st.lists(st.sampled_from(sorted(FAMILIES)), unique=True).map(tuple),
        alpha=st.floats(-0.2, 0.2).filter(lambda alpha: abs(alpha) > 1e-6),
        seed=st.integers(0, 10**6),
        soft=st.booleans(),
        micro_batch=st.none() | st.integers(1, IMAGES),
    )
    @example(depth=2, N=12, batch=3, families=tuple(FAMILIES), alpha=-0.1, seed=0, soft=True, micro_batch=2)
    @example(depth=1, N=1, batch=IMAGES, families=(), alpha=0.1, seed=0, soft=False, micro_batch=None)
    def test_any_loop(self, micro_batch: int | None, **options: Any) -> None:
        agrees_with_the_unrolled_loop(problem(**options), micro_batch=micro_batch)

    @pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
    @pytest.mark.parametrize("families", [(), tuple(FAMILIES)], ids=["none", "all"])
    def test_our_own_unrolled_loop(self, families: tuple[str, ...], soft: bool) -> None:
        agrees_with_the_unrolled_loop(problem(depth=2, N=7, families=families, soft=soft), method="unrolled")

    @pytest.mark.parametrize("depth", [1, 2])
    @pytest.mark.parametrize("family", [*FAMILIES, None])
    def test_every_family(self, family: str | None, depth: int) -> None:
        families = (family,) if family else ()
        agrees_with_the_unrolled_loop(problem(depth=depth, N=6, batch=3, families=families, seed=family or "none"))

    def test_without_inner_training_only_alpha_has_a_gradient(self) -> None:
        arguments = problem(alpha=0.0)
        found = matching_gradient(**arguments)
        _, _, alpha = unrolled(**arguments)
        assert found.loss == pytest.approx(1, rel=1e-14)
        assert not found.images.any()
        assert relative_error(found.alpha, alpha) <= 1e-10

    def test_images_that_no_step_uses_have_no_gradient(self) -> None:
        arguments = problem(N=2, batch=3)
        used = torch.cat([chunk.indices for chunk in arguments["chunks"]])
        gradient = matching_gradient(**arguments).images
        assert [bool(image.any()) for image in gradient] == [index in used for index in range(IMAGES)]

    def test_float32_is_the_same_gradient_to_its_precision(self) -> None:
        exact = matching_gradient(**problem())
        rounded = matching_gradient(**problem(dtype=torch.float32))
        assert rounded.images.dtype == torch.float32
        assert relative_error(rounded.images, exact.images) < 1e-3
        assert rounded.loss == pytest.approx(exact.loss, rel=1e-5)


class TestTruncated:
    """TESLA's gradient: each step's parameters held fixed, ∂L/∂x = −α ∂/∂x Σ_i ⟨g_i(x), λ_N⟩.

    Source: docs/method.md, "Matching gradient".
    """

    def by_definition(self, arguments: dict[str, Any]) -> tuple[list[Tensor], float]:
        network, alpha, labels = arguments["network"], arguments["alpha"], arguments["labels"]
        theta, images = arguments["start"].clone(), arguments["images"].clone().requires_grad_()
        soft = labels.is_floating_point()
        labels = labels.clone().requires_grad_(soft)
        steps = []
        for chunk in arguments["chunks"]:
            leaf = theta.detach().requires_grad_()
            logits = network.logits(leaf, arguments["augmentation"].apply(images[chunk.indices], chunk.draw))
            chosen = labels[chunk.indices]
            loss = F.cross_entropy(logits, F.softmax(chosen, dim=1) if soft else chosen)
            steps += torch.autograd.grad(loss, leaf, create_graph=True)
            theta = theta - alpha * steps[-1].detach()
        adjoint = 2 * (theta - arguments["target"]) / (arguments["start"] - arguments["target"]).square().sum()
        total: Any = sum(torch.dot(step, adjoint) for step in steps)
        found = torch.autograd.grad(total, (images, labels) if soft else (images,))
        return [-alpha * each for each in found], -float(total)

    @pytest.mark.parametrize("micro_batch", [None, 2])
    @pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
    @pytest.mark.parametrize("families", [(), tuple(FAMILIES)], ids=["none", "all"])
    def test_is_teslas(self, families: tuple[str, ...], soft: bool, micro_batch: int | None) -> None:
        arguments = problem(depth=2, N=6, families=families, soft=soft)
        found = matching_gradient(**arguments, method="truncated", micro_batch=micro_batch)
        (images, *labels), alpha = self.by_definition(arguments)
        assert relative_error(found.images, images) <= 1e-10
        assert found.alpha == pytest.approx(alpha, rel=1e-10)
        if soft:
            assert relative_error(found.labels, labels[0]) <= 1e-10

    def test_is_the_exact_one_for_images_that_only_the_last_step_used(self) -> None:
        arguments = problem(N=3, batch=3, alpha=0.1)  # 3, 3 and 1 of 7 images
        last = arguments["chunks"][-1].indices
        exact, truncated = (matching_gradient(**arguments, method=method) for method in ("exact", "truncated"))
        assert relative_error(truncated.images[last], exact.images[last]) <= 1e-10
        earlier = torch.cat([chunk.indices for chunk in arguments["chunks"][:-1]])
        assert relative_error(truncated.images[earlier], exact.images[earlier]) > 1e-3
        assert relative_error(truncated.alpha, exact.alpha) > 1e-3
        assert truncated.loss == exact.loss

    def test_is_the_exact_one_in_a_loop_of_one_step(self) -> None:
        arguments = problem(N=1, alpha=0.1, soft=True)
        exact, truncated = (matching_gradient(**arguments, method=method) for method in ("exact", "truncated"))
        for name in ("images", "labels", "alpha"):
            assert relative_error(getattr(truncated, name), getattr(exact, name)) <= 1e-12


class TestKeptGraphs:
    """Whether a step's graph is kept or computed again is no matter of the result."""

    @settings(deadline=None, max_examples=60)
    @given(
        kept_steps=st.integers(1, 9),
        N=st.integers(1, 7),
        batch=st.integers(1, 7),
        micro_batch=st.sampled_from([None, 1, 2, 3]),
        depth=st.integers(1, 2),
        families=st.sampled_from([(), tuple(FAMILIES), ("scale", "rotate")]),
        soft=st.booleans(),
        method=st.sampled_from(["exact", "truncated"]),
        precision=st.sampled_from(["fp32", "bf16"]),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        seed=st.integers(0, 10**6),
    )
    def test_give_the_same_bits(
        self, kept_steps: int, method: str, micro_batch: int | None, precision: str, **drawn: Any
    ) -> None:
        arguments = problem(**drawn)
        options: dict[str, Any] = {"method": method, "micro_batch": micro_batch, "precision": precision}
        found = matching_gradient(**arguments, **options, kept_steps=kept_steps)
        expected = matching_gradient(**arguments, **options)
        assert (found.loss, found.alpha) == (expected.loss, expected.alpha)
        assert torch.equal(found.images, expected.images)
        if expected.labels is not None and found.labels is not None:
            assert torch.equal(found.labels, expected.labels)

    def test_all_kept_are_the_unrolled_loop(self) -> None:
        arguments = problem(depth=2, N=6, families=tuple(FAMILIES), soft=True)
        agrees_with_the_unrolled_loop(arguments, kept_steps=6, micro_batch=2)

    def test_are_not_for_steps_that_have_none_or_have_them_anyway(self) -> None:
        network = network_of(1)
        with pytest.raises(ConfigError, match="a compiled step keeps no graphs, and kept_steps is 1; make it 0"):
            Matcher(InnerStep(network, compiled=True, micro_batch=2), Augmentation(), kept_steps=1)
        with pytest.raises(ConfigError, match="the unrolled gradient keeps all graphs, and kept_steps is 1; make it 0"):
            Matcher(InnerStep(network), Augmentation(), method="unrolled", kept_steps=1)


class TestAgainstFiniteDifferences:
    STEP = 1e-5

    @pytest.mark.parametrize("depth", [1, 2])
    @pytest.mark.parametrize("families", [(), *((family,) for family in FAMILIES)], ids=str)
    def test_images_along_random_directions(self, depth: int, families: tuple[str, ...]) -> None:
        arguments = problem(depth=depth, N=5, batch=3, families=families, alpha=0.05)
        gradient = matching_gradient(**arguments).images
        for number in range(2):
            direction = torch.randn(gradient.shape, dtype=gradient.dtype, generator=generator("direction", number))
            direction /= direction.norm()
            moved = partial(loss_moved, arguments, "images", direction)
            expected = central_difference(moved, self.STEP)
            # Relative to the steepest slope: a random direction may be nearly level.
            assert abs(float((gradient * direction).sum()) - expected) <= 1e-6 * float(gradient.norm())

    @pytest.mark.parametrize("depth", [1, 2])
    def test_images_along_the_gradient(self, depth: int) -> None:
        arguments = problem(depth=depth, N=8, batch=3, alpha=0.05, seed=1)
        gradient = matching_gradient(**arguments).images
        steepest = gradient / gradient.norm()
        slope = central_difference(lambda h: loss_at(arguments, images=arguments["images"] + h * steepest), self.STEP)
        assert slope == pytest.approx(float(gradient.norm()), rel=1e-6)

    @pytest.mark.parametrize("depth", [1, 2])
    def test_soft_labels_along_random_directions(self, depth: int) -> None:
        arguments = problem(depth=depth, N=5, batch=3, soft=True)
        gradient = matching_gradient(**arguments).labels
        assert gradient is not None
        for number in range(2):
            direction = torch.randn(gradient.shape, dtype=gradient.dtype, generator=generator("label", number))
            direction /= direction.norm()
            moved = partial(loss_moved, arguments, "labels", direction)
            expected = central_difference(moved, self.STEP)
            assert abs(float((gradient * direction).sum()) - expected) <= 1e-6 * float(gradient.norm())

    @pytest.mark.parametrize("depth", [1, 2])
    @pytest.mark.parametrize("families", [(), tuple(FAMILIES)], ids=["none", "all"])
    @pytest.mark.parametrize("alpha", [-0.05, 0.01, 0.1])
    def test_alpha(self, depth: int, families: tuple[str, ...], alpha: float) -> None:
        arguments = problem(depth=depth, N=7, batch=3, families=families, alpha=alpha)
        slope = central_difference(lambda h: loss_at(arguments, alpha=alpha + h), self.STEP * 0.1)
        assert matching_gradient(**arguments).alpha == pytest.approx(slope, rel=1e-6)


class TestLoss:
    @pytest.mark.parametrize("depth", [1, 2])
    def test_is_the_formula_with_torchs_layers_and_sgd(self, depth: int) -> None:
        arguments = problem(depth=depth, N=9, batch=4, alpha=0.08)
        module = module_of(arguments["network"], arguments["start"])
        optimizer = torch.optim.SGD(module.parameters(), lr=0.08)
        for chunk in arguments["chunks"]:
            optimizer.zero_grad()
            F.cross_entropy(module(arguments["images"][chunk.indices]), arguments["labels"][chunk.indices]).backward()
            optimizer.step()
        end = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
        start, target = arguments["start"], arguments["target"]
        expected = float((end - target).square().sum() / (start - target).square().sum())
        assert loss_at(arguments) == pytest.approx(expected, rel=1e-12)

    def test_is_zero_with_no_gradient_where_the_loop_ends_on_the_target(self) -> None:
        arguments = problem(N=1)
        (chunk,) = arguments["chunks"]
        leaf = arguments["start"].clone().requires_grad_()
        logits = arguments["network"].logits(leaf, arguments["images"][chunk.indices])
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, arguments["labels"][chunk.indices]), leaf)
        found = matching_gradient(**{**arguments, "target": arguments["start"] - arguments["alpha"] * gradient})
        assert found.loss < 1e-25
        assert found.images.abs().max() < 1e-10
        assert abs(found.alpha) < 1e-10

    def test_settings_that_cannot_be_met_are_refused(self) -> None:
        network, augmentation = network_of(1), Augmentation()
        with pytest.raises(ConfigError, match="exact, truncated, unrolled, not tesla"):
            Matcher(InnerStep(network), augmentation, method="tesla")
        with pytest.raises(ConfigError, match="unrolled gradient keeps whole chunks"):
            Matcher(InnerStep(network, micro_batch=2), augmentation, method="unrolled")

    def test_a_diverged_loop_is_not_finite_rather_than_wrong(self) -> None:
        assert not math.isfinite(loss_at(problem(alpha=1e200)))

    def test_what_is_given_is_left_as_it_was(self) -> None:
        arguments = problem(families=tuple(FAMILIES))
        before = {name: arguments[name].clone() for name in ("start", "target", "images", "labels")}
        matching_gradient(**arguments)
        for name, value in before.items():
            assert torch.equal(arguments[name], value)
            assert not arguments[name].requires_grad
