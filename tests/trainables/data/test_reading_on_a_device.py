"""Every stage sends bytes to the device and normalises them there, seen on pretended CUDA."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.pretended_cuda import pretended_cuda
from tests.support.small_numerics import IMAGES, NETWORK, WHITENED, of_distillation, of_evaluation, of_experts
from trainables.baselines.coresets.scoring_runs import record
from trainables.baselines.squeeze import squeeze, squeeze_protocol
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.real_images import real_images
from trainables.evaluation.submission import recognise
from trainables.evaluation.teachers import trained_teacher

ONE_EPOCH = Protocol.challenge(1)

STAGES: dict[str, Callable[[torch.device, Path], object]] = {
    "experts": lambda device, _: of_experts(device, "sgd", 1, resident=False),
    "experts on resident images": lambda device, _: of_experts(device, "sgd", 1, resident=True),
    "a validation": lambda device, _: of_evaluation(device, WHITENED),
    "distribution matching": lambda device, _: of_distillation(device, "distribution"),
    "gradient matching": lambda device, _: of_distillation(device, "gradient"),
    "a teacher": lambda device, folder: trained_teacher(
        folder, NETWORK, WHITENED, ONE_EPOCH, Augmentation(), 0, device
    ),
    "a squeeze": lambda device, _: squeeze(NETWORK, WHITENED, squeeze_protocol(1), Augmentation(), 0, device),
    "a scoring run": lambda device, _: record(
        NETWORK, WHITENED, protocol=ONE_EPOCH, augmentation=Augmentation(), seed=0, device=device
    ),
    "a check of the order of classes": lambda device, _: recognise(IMAGES, WHITENED, device),
    "real images": lambda device, _: real_images(WHITENED, 2, 0, device),
}


@pytest.mark.parametrize("stage", STAGES)
def test_bytes_are_sent_and_normalised_there(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[torch.dtype, str]] = []
    normalize = ImageDataset.normalize

    def recorded(dataset: ImageDataset, pixels: Tensor) -> Tensor:
        given.append((pixels.dtype, pixels.device.type))
        return normalize(dataset, pixels)

    monkeypatch.setattr(ImageDataset, "normalize", recorded)
    with pretended_cuda():
        STAGES[stage](torch.device("cuda", 0), tmp_path)
    assert set(given) == {(torch.uint8, "cuda")}
