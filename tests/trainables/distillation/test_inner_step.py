"""The written-out network and its compiled derivatives: against PyTorch's layers and plain autograd."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.references import relative_error
from trainables.distillation.inner_step import InnerStep
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.networks.elementary import explicit_logits, unfolded_convolution, winograd_convolution
from trainables.seeding import generator


def case(
    *,
    image_size: int = 8,
    depth: int = 2,
    width: int = 4,
    channels: int = 2,
    classes: int = 3,
    batch: int = 5,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[ConvNet, Tensor, Tensor, Tensor, Tensor]:
    network = ConvNet(channels=channels, image_size=image_size, classes=classes, depth=depth, width=width)
    draws = generator("inner step", seed)
    theta = network.initial(draws).to(dtype)
    images = torch.randn(batch, channels, image_size, image_size, generator=draws).to(dtype)
    targets = F.softmax(torch.randn(batch, classes, generator=draws), dim=1).to(dtype) / batch
    adjoint = torch.randn(theta.shape, generator=draws).to(dtype)
    return network, theta, images, targets, adjoint


class TestExplicitNetwork:
    @settings(deadline=None, max_examples=40)
    @given(
        batch=st.integers(1, 4), inputs=st.integers(1, 5), outputs=st.integers(1, 5), half=st.integers(1, 5),
        seed=st.integers(0, 10**6),
    )  # fmt: skip
    def test_convolutions_are_pytorchs(self, batch: int, inputs: int, outputs: int, half: int, seed: int) -> None:
        draws = generator("convolution", seed)
        x = torch.randn(batch, 2 * half, 2 * half, inputs, generator=draws).double()
        weight = torch.randn(outputs, inputs, 3, 3, generator=draws).double()
        expected = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=1).permute(0, 2, 3, 1)
        assert relative_error(winograd_convolution(x, weight), expected) < 1e-13
        assert relative_error(unfolded_convolution(x, weight), expected) < 1e-13

    @pytest.mark.parametrize("width", [4, 20], ids=["unfolded", "winograd"])
    @pytest.mark.parametrize("image_size", [8, 12, 13])  # 12 → 6 → 3 and 13 → 6 → 3: odd sides too
    def test_logits_are_the_networks(self, image_size: int, width: int) -> None:
        network, theta, images, *_ = case(image_size=image_size, depth=3, width=width)
        expected = network.logits(theta, images)
        assert relative_error(explicit_logits(network, theta, images, torch.float64), expected) < 1e-12

    def test_float32_is_as_near_to_float64_as_the_library_is(self) -> None:
        network, theta, images, *_ = case(image_size=32, depth=3, width=32, channels=3, dtype=torch.float32)
        exact = network.logits(theta.double(), images.double())
        of_library = relative_error(network.logits(theta, images), exact)
        assert relative_error(explicit_logits(network, theta, images, torch.float32), exact) < 4 * of_library

    def test_bf16_multiplies_in_bf16_and_keeps_the_rest(self) -> None:
        network, theta, images, *_ = case(image_size=16, width=16, dtype=torch.float32)
        rounded = explicit_logits(network, theta, images, torch.bfloat16)
        error = relative_error(rounded, network.logits(theta, images))
        assert rounded.dtype == torch.float32
        assert 1e-4 < error < 3e-2


class TestDerivatives:
    @pytest.mark.parametrize("micro_batch", [None, 1, 2, 5, 9])
    @pytest.mark.parametrize("curvature", [True, False])
    def test_are_autograds_whatever_the_micro_batch(self, micro_batch: int | None, curvature: bool) -> None:
        network, theta, images, targets, adjoint = case()
        theta, images, targets = (each.requires_grad_() for each in (theta, images, targets))
        loss = F.cross_entropy(network.logits(theta, images), targets * len(images))
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        value = gradient @ adjoint
        expected = torch.autograd.grad(value, (theta, images, targets))
        step = InnerStep(network, micro_batch=micro_batch)
        assert relative_error(step.gradient(theta, images, targets), gradient.detach()) < 1e-12
        *found, found_value = step.products(theta, images, targets, adjoint, curvature=curvature)
        assert relative_error(found_value, value.detach()) < 1e-12
        assert not curvature or relative_error(found[0], expected[0]) < 1e-12
        assert curvature or not found[0].any()
        for one, other in zip(found[1:], expected[1:], strict=True):
            assert relative_error(one, other) < 1e-12

    @pytest.mark.slow
    def test_compiled_are_the_same_with_one_compilation_for_all_chunks(self) -> None:
        # The first convolution is unfolded, the second after Winograd.
        network, theta, images, targets, adjoint = case(width=16)
        plain, compiled = InnerStep(network), InnerStep(network, compiled=True, micro_batch=2)
        torch._dynamo.utils.counters.clear()
        for batch in (5, 4, 1):
            arguments = theta, images[:batch], targets[:batch]
            assert relative_error(compiled.gradient(*arguments), plain.gradient(*arguments)) < 1e-11
            for one, other in zip(
                compiled.products(*arguments, adjoint), plain.products(*arguments, adjoint), strict=True
            ):
                assert relative_error(one, other) < 1e-11
                assert one.shape == other.shape
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2

    def test_settings_that_cannot_be_met_are_refused(self) -> None:
        network = case()[0]
        with pytest.raises(ConfigError, match="fp32, tf32, bf16, not fp8"):
            InnerStep(network, precision="fp8")
        with pytest.raises(ConfigError, match="needs a micro-batch size"):
            InnerStep(network, compiled=True)
