"""Whether a device computes what the CPU computes: gradients in every way, and the training of networks.

Gradients are compared with float64 on the CPU. In float64 the device must agree to rounding, whatever its kernels are;
in a lower precision the error is that of the precision, mostly activations that rounding moves over ReLU's kink.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.device.results import Check
from benchmarks.made_images import random_dataset
from benchmarks.matching import MatchingProblem
from benchmarks.measure import use_precision
from search_spaces.vocabulary import DEFAULTS
from trainables.config.experts import ExpertRecipe
from trainables.config.protocol import Protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.distillation.matching import METHODS, MatchingGradient
from trainables.evaluation.training import train_networks
from trainables.experts.training import ExpertState, ExpertTrainer
from trainables.seeding import generator

__all__ = ["LIMITS", "TRAINING_LIMIT", "gradient_checks", "training_checks"]

LIMITS = {"fp64": 1e-9, "fp32": 1e-2, "tf32": 0.15, "bf16": 0.4}
"""Largest relative error of a gradient that counts as correct. At the learning rate of the checks a gradient without
its second derivatives would be off by about 1. Rounding to 24 bits costs 2e-6, and 3e-3 if it moves an activation over
ReLU's kink; rounding to 8 bits costs up to .2 (on a CPU)."""
TRAINING_LIMIT = 1e-2
"""Largest relative deviation of a training's displacement in float32, likewise."""

_CPU = torch.device("cpu")


def gradient_checks(problem: MatchingProblem, precision: str, device: str, deadline: float) -> Iterator[Check]:
    """Yield a check for each gradient method, kind of labels and augmentation family; in fp64 and fp32 all families.

    In other precisions all families are drawn from at once.

    Raises:
        ConfigError: The product does not offer the precision.
    """
    use_precision("fp32" if precision == "fp64" else precision, device)
    each = precision in ("fp64", "fp32")
    for families in [(family,) for family in FAMILIES] if each else [tuple(FAMILIES)]:
        for soft in (False, True):
            checked = replace(problem, families=families, soft=soft)
            for method in METHODS:
                reference = _gradient(checked, method, "fp64", _CPU)
                found = _gradient(checked, method, precision, torch.device(device))
                labels = "soft labels" if soft else "hard labels"
                yield Check(
                    name=f"{method}, {families[0] if each else 'all families'}, {labels}",
                    precision=precision,
                    error=_gradient_error(found, reference),
                    limit=LIMITS[precision],
                )


def _gradient(problem: MatchingProblem, method: str, precision: str, device: torch.device) -> MatchingGradient:
    dtype = torch.float64 if precision == "fp64" else torch.float32
    matcher = problem.matcher(
        method,
        precision="fp32" if precision == "fp64" else precision,
        compiled=False,
        device=device,
        micro_batch=math.ceil(problem.batch / 2),
    )
    return matcher(**problem.arguments(device, dtype))


def _gradient_error(found: MatchingGradient, reference: MatchingGradient) -> float:
    """Return the largest of the relative errors along images, labels and α."""
    errors = [
        relative_error(found.images, reference.images),
        relative_error(torch.tensor(found.alpha), torch.tensor(reference.alpha)),
    ]
    if found.labels is not None and reference.labels is not None:
        errors.append(relative_error(found.labels, reference.labels))
    return max(errors, key=lambda error: math.inf if math.isnan(error) else error)


def relative_error(found: Tensor, reference: Tensor) -> float:
    """Return ‖found − reference‖ / ‖reference‖, computed on the CPU in float64."""
    expected = reference.cpu().double()
    return float((found.cpu().double() - expected).norm() / expected.norm())


def training_checks(problem: MatchingProblem, device: str, deadline: float) -> Iterator[Check]:
    """Yield checks of experts and of networks trained on a set, alone and three together, in float32.

    The reference is the same training on the CPU, alone. The deviation is relative to how far the network moved.
    """
    use_precision("fp32", device)
    experts = range(3)
    expected = [_experts(problem, [expert], _CPU, resident=False)[0] for expert in experts]
    starts = [_trainer(problem, _CPU, resident=False).start(expert).theta for expert in experts]
    for resident in (False, True):
        alone = [_experts(problem, [expert], torch.device(device), resident=resident)[0] for expert in experts]
        together = _experts(problem, list(experts), torch.device(device), resident=resident)
        for how, found in (("alone", alone), ("three together", together)):
            yield _check(f"experts {how}, images {'on the device' if resident else 'copied'}", found, expected, starts)
    starts = [problem.network.initial(generator(seed, "evaluation", "initial")) for seed in experts]
    expected = [_networks(problem, [seed], _CPU)[0] for seed in experts]
    alone = [_networks(problem, [seed], torch.device(device))[0] for seed in experts]
    together = list(_networks(problem, list(experts), torch.device(device)))
    yield _check("networks on a set, alone", alone, expected, starts)
    yield _check("networks on a set, three together", together, expected, starts)


def _check(name: str, found: list[Tensor], expected: list[Tensor], starts: list[Tensor]) -> Check:
    moved = torch.stack(expected) - torch.stack(starts)
    error = relative_error(torch.stack([theta.cpu() for theta in found]) - torch.stack(starts), moved)
    return Check(name=name, precision="fp32", error=error, limit=TRAINING_LIMIT)


def _trainer(problem: MatchingProblem, device: torch.device, *, resident: bool) -> ExpertTrainer:
    return ExpertTrainer(
        dataset=random_dataset(problem.images, problem.size, problem.classes),
        network=problem.network,
        recipe=ExpertRecipe.from_settings({**DEFAULTS, "expert_batch_size": problem.batch}),
        augmentation=Augmentation(families=tuple(FAMILIES)),
        seed=0,
        device=device,
        resident=resident,
    )


def _experts(problem: MatchingProblem, experts: list[int], device: torch.device, *, resident: bool) -> list[Tensor]:
    """Return the parameters of experts after an epoch, trained together."""
    trainer = _trainer(problem, device, resident=resident)
    trained = trainer.train_epoch_together(experts, [trainer.start(expert) for expert in experts])
    diverged = torch.full((problem.network.parameters,), math.nan)
    return [state.theta if isinstance(state, ExpertState) else diverged for state in trained]


def _networks(problem: MatchingProblem, seeds: list[int], device: torch.device) -> Tensor:
    """Return the parameters [K, P] of networks after two epochs on a set, trained together."""
    arguments = problem.arguments(device, torch.float32)
    return train_networks(
        problem.network,
        arguments["images"],
        torch.arange(problem.images, device=device) % problem.classes,
        protocol=Protocol(epochs=2, batch_size=problem.batch),
        augmentation=Augmentation(families=tuple(FAMILIES)).for_evaluation(),
        seeds=seeds,
    )
