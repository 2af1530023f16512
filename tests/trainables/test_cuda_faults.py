"""Faults that only a GPU would show, planted into the product: the rehearsals on pretended CUDA catch each of them.

A planted fault computes the same values on a CPU, so no other test would find it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import trainables.baselines.squeeze
import trainables.data.augmentation as augmentation
import trainables.data.datasets as datasets
import trainables.distillation.learned_images as learned_images
import trainables.distillation.matching as matching
import trainables.distillation.real_matching as real_matching
import trainables.evaluation.optimizer as optimizer
import trainables.evaluation.regimes as regimes
import trainables.evaluation.training as evaluation
import trainables.experts.training as experts
from tests.support import small_numerics as small
from tests.support.pretended_cuda import pretended_cuda
from trainables.baselines.squeeze import squeeze, squeeze_protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.data.whitening import Whitening
from trainables.distillation.trajectory import Distiller
from trainables.networks.convnet import ConvNet

Plant = Callable[[pytest.MonkeyPatch], None]
Run = Callable[[torch.device], Any]


class Forgetful:
    """torch, but some of its functions forget the device that they are told, or that of their argument."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        function = getattr(torch, name)
        if name not in self._names:
            return function

        def forget(*args: Any, device: Any = None, **kwargs: Any) -> Any:
            if name.endswith("_like"):
                return getattr(torch, name)(*args, device="cpu", **kwargs)
            return function(*args, **kwargs)

        return forget


def forgets(module: Any, *names: str) -> Plant:
    return lambda patch: patch.setattr(module, "torch", Forgetful(*names))


def put(target: Any, name: str, value: Any) -> Plant:
    return lambda patch: patch.setattr(target, name, value)


def on_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose result stays on the CPU."""
    return lambda *args, **kwargs: function(*args, **kwargs).cpu()


def with_cpu_values(family: str) -> Plant:
    """A family's parameters are left where they were drawn."""
    draw, apply = FAMILIES[family]

    def forgetful(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
        return apply(images, {name: value.cpu() for name, value in values.items()}, align_corners)

    return lambda patch: patch.setitem(FAMILIES, family, (draw, forgetful))


def _initial_there(self: ConvNet, generator: torch.Generator) -> Tensor:
    return torch.empty(self.parameters, device=small.CUDA).uniform_(-0.1, 0.1, generator=generator)


def _restored_to_the_cpu(self: Any, state: dict[str, Any]) -> None:
    self._restore(state)


def _not_moved(value: Any, device: torch.device) -> Any:
    return value


def _apply_unmoved(self: Augmentation, images: Tensor, draw: augmentation.Draw | None) -> Tensor:
    return images if draw is None else FAMILIES[draw.family][1](images, draw.values, self.align_corners)


def _draws_unmoved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(matching, "moved", _not_moved)
    patch.setattr(Augmentation, "apply", _apply_unmoved)


def _rows_from_the_device(patch: pytest.MonkeyPatch) -> None:
    drawn = experts.ExpertTrainer._drawn
    patch.setattr(
        experts.ExpertTrainer, "_drawn",
        lambda *args: [replace(batch, rows=batch.placed_rows) for batch in drawn(*args)],
    )  # fmt: skip


def _labels_of_the_cpu(patch: pytest.MonkeyPatch) -> None:
    loss = regimes.training_loss
    patch.setattr(
        evaluation, "training_loss", lambda logits, labels, temperature: loss(logits, labels.cpu(), temperature)
    )


def _teacher_on_the_cpu(patch: pytest.MonkeyPatch) -> None:
    made = regimes.Teacher
    patch.setattr(small, "Teacher", lambda network, theta: made(network, theta.cpu()))


def _labels_of_a_set_on_the_cpu(patch: pytest.MonkeyPatch) -> None:
    begin = real_matching.RealMatching.__init__

    def forgetful(self: real_matching.RealMatching, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.labels = self.labels.cpu()

    patch.setattr(real_matching.RealMatching, "__init__", forgetful)


def matches(family: str = "", **settings: Any) -> Run:
    families = (family,) if family else ()
    return lambda device: small.of_gradient(device, settings.get("method", "exact"), "fp32", families, "hard")


def distils(method: str, **settings: Any) -> Run:
    return lambda device: small.of_distillation(device, method, **settings)


def trains_experts(experts: int = 1, *, resident: bool = True) -> Run:
    return lambda device: small.of_experts(device, "gsam", experts, resident=resident)


def trains(regime: str, networks: int = 1) -> Run:
    return lambda device: small.of_regime(device, regime, networks)


def evaluates(dataset: datasets.ImageDataset) -> Run:
    return lambda device: small.of_evaluation(device, dataset)


def squeezes(device: torch.device) -> Any:
    return squeeze(small.NETWORK, small.DATASET, squeeze_protocol(1), Augmentation(), 0, device)


_GRADIENTS = evaluation._gradients

FAULTS: dict[str, tuple[Plant, Run]] = {
    "draws are not moved": (_draws_unmoved, matches("color")),
    "pixels are numbered on the CPU": (forgets(augmentation, "arange"), matches("cutout")),
    "places of a crop are numbered on the CPU": (forgets(augmentation, "arange"), matches("crop")),
    "a mask from a CPU draw": (with_cpu_values("cutout"), matches("cutout")),
    "a choice by a CPU draw": (with_cpu_values("flip"), matches("flip")),
    "a grid from a CPU draw": (with_cpu_values("rotate"), matches("rotate")),
    "sums of gradients on the CPU": (forgets(matching, "zeros_like"), matches()),
    "chunks are not moved in the unrolled loop": (_draws_unmoved, matches("scale", method="unrolled")),
    "a network is drawn on the device by a CPU generator": (
        put(ConvNet, "initial", _initial_there), distils("distribution"),
    ),
    "a snapshot is not moved": (put(Distiller, "_snapshot", on_the_cpu(Distiller._snapshot)), distils("trajectory")),
    "a checkpoint is restored to the CPU": (
        put(learned_images.LearnedImages, "load_state_dict", _restored_to_the_cpu), distils("trajectory"),
    ),
    "a checkpoint of DC is restored to the CPU": (
        put(learned_images.LearnedImages, "load_state_dict", _restored_to_the_cpu),
        distils("gradient", outer_loop=5, inner_loop=1),
    ),
    "momentum begins on the CPU": (forgets(learned_images, "zeros_like"), distils("distribution")),
    "real images stay on the CPU": (
        put(datasets.ImageDataset, "normalized", on_the_cpu(datasets.ImageDataset.normalized)), distils("gradient"),
    ),
    "labels of a set stay on the CPU": (
        _labels_of_a_set_on_the_cpu, distils("gradient", outer_loop=5, inner_loop=1),
    ),
    "losses of experts are summed on the CPU": (forgets(experts, "zeros"), trains_experts()),
    "images are read by rows of the device": (_rows_from_the_device, trains_experts(resident=False)),
    "the resident images stay on the CPU": (forgets(experts, "empty"), trains_experts()),
    "one of several experts starts on the CPU": (
        put(experts, "_stack", lambda parts: torch.stack([parts[0].cpu(), *parts[1:]])), trains_experts(3),
    ),
    "vmapped networks have CPU parameters": (
        put(evaluation, "_gradients", lambda network, theta, *rest: _GRADIENTS(network, theta.cpu(), *rest)),
        trains("hard", 3),
    ),
    "classes stay on the CPU": (_labels_of_the_cpu, trains("hard")),
    "the teacher stays on the CPU": (_teacher_on_the_cpu, trains("soft_kd")),
    "the optimiser's zeros lie on the CPU": (forgets(optimizer, "zeros_like"), trains("hard")),
    "AdamW's zeros lie on the CPU": (forgets(optimizer, "zeros_like"), trains("soft")),
    "predictions are not brought back": (
        put(evaluation, "predict", lambda network, theta, images, count: theta[:count].long()),
        evaluates(small.DATASET),
    ),
    "whitening's matrix stays on the CPU": (
        put(Whitening, "_on", lambda self, name, device: getattr(self, name)), evaluates(small.WHITENED),
    ),
    "running statistics lie on the CPU": (forgets(trainables.baselines.squeeze, "zeros", "ones"), squeezes),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, run = FAULTS[fault]
    plant(monkeypatch)
    with pretended_cuda(), pytest.raises((RuntimeError, TypeError, AssertionError), match=r"cuda|same device"):
        run(small.CUDA)


SOUND = {
    "gradient": matches("color"),
    "experts": trains_experts(3, resident=False),
    "regime": trains("soft_kd", 3),
    "squeeze": squeezes,
}


@pytest.mark.parametrize("case", SOUND)
def test_nothing_is_caught_where_nothing_is_planted(case: str) -> None:
    with pretended_cuda():
        SOUND[case](small.CUDA)
