"""A compiled step compiles its two functions once, whatever passes through it."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Matcher, draw_chunks
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

NETWORK = ConvNet(channels=3, image_size=8, classes=4, depth=1, width=4)
DRAWS = generator("compilations")
IMAGES = torch.randn(12, 3, 8, 8, generator=DRAWS)
EPOCHS = [NETWORK.initial(DRAWS) for _ in range(3)]
LABELS = {"hard": torch.arange(12) % 4, "soft": torch.randn(12, 4, generator=DRAWS)}


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Count what is handed to the compiler's backend, which here runs it as it is."""
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    return counter


def match(matcher: Matcher, *, N: int, M: int, batch: int, labels: str) -> None:
    chunks = draw_chunks(IMAGES, N, batch, matcher.augmentation, generator("compilations", N, M, batch))
    arguments = {"images": IMAGES, "labels": LABELS[labels], "alpha": 0.01, "chunks": chunks}
    matcher(start=EPOCHS[0], target=EPOCHS[M], **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["exact", "truncated"])
def test_all_families_chunks_and_lengths_share_two_compilations(compilations: CompileCounter, method: str) -> None:
    """Chunks of 5, 5 and 2, and of 12, in micro-batches of 3: most are filled up."""
    step = InnerStep(NETWORK, compiled=True, micro_batch=3)
    for families in ((), *((family,) for family in FAMILIES)):
        matcher = Matcher(step, Augmentation(families=families), method=method)
        for N, M, batch in ((2, 1, 12), (4, 2, 5)):
            for labels in LABELS:
                match(matcher, N=N, M=M, batch=batch, labels=labels)
    assert compilations.frame_count == 2


def test_images_with_their_channels_last_in_memory_are_compiled_anew(compilations: CompileCounter) -> None:
    """What the test above would see of a family that returned them so."""
    step, targets = InnerStep(NETWORK, compiled=True, micro_batch=12), torch.eye(4).repeat(3, 1)
    for images in (IMAGES, IMAGES.clone(), IMAGES.to(memory_format=torch.channels_last)):
        step.gradient(EPOCHS[0], images, targets)
    assert compilations.frame_count == 2
