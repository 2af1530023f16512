"""The layers for second derivatives: PyTorch's layers and its gradgradcheck are the oracle."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.references import relative_error
from trainables.networks.convolution import twice_differentiable_convolution
from trainables.networks.layers import PLAIN, Layers, second_order_layers
from trainables.seeding import generator

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OURS = Layers(twice_differentiable_convolution, second_order_layers(CPU, curvature=True).instance_norm)
LAYERS = ["convolution", "instance_norm"]


def inputs_of(
    layer: str, *, batch: int = 2, inputs: int = 2, outputs: int = 3, side: int = 4, seed: int = 0
) -> list[Tensor]:
    """Float64 input, weight and bias of a layer."""
    draws = generator("layers", layer, seed)
    weight = (outputs, inputs, 3, 3) if layer == "convolution" else (inputs,)
    shapes = [(batch, inputs, side, side), weight, (weight[0],)]
    return [torch.randn(shape, generator=draws).double() for shape in shapes]


def second_derivatives(layers: Layers, layer: str, parts: list[Tensor], seed: int = 0) -> list[Tensor]:
    """Value, gradient and the derivatives of a random combination of the gradient, for all that require a gradient."""
    draws = generator("directions", seed)
    value = getattr(layers, layer)(*parts)
    needed = [part for part in parts if part.requires_grad]
    along = torch.randn(value.shape, generator=draws).to(value).requires_grad_()
    gradient = torch.autograd.grad(value, needed, along, create_graph=True)
    combination = torch.stack(
        [(torch.randn(part.shape, generator=draws).to(part) * part).sum() for part in gradient]
    ).sum()
    again = torch.autograd.grad(combination, [*needed, along], materialize_grads=True)
    return [part.detach() for part in (value, *gradient, *again)]


@pytest.mark.parametrize("layer", LAYERS)
class TestAgainstPyTorch:
    def test_gradients_of_gradients_are_those_of_finite_differences(self, layer: str) -> None:
        parts = [part.requires_grad_() for part in inputs_of(layer)]
        assert torch.autograd.gradcheck(getattr(OURS, layer), parts)
        assert torch.autograd.gradgradcheck(getattr(OURS, layer), parts)

    @pytest.mark.parametrize("needed", [flags for flags in product([False, True], repeat=3) if any(flags)], ids=str)
    def test_derivatives_are_pytorchs_whatever_needs_them(self, layer: str, needed: tuple[bool, ...]) -> None:
        ours, theirs = (
            second_derivatives(
                layers,
                layer,
                [part.requires_grad_(need) for part, need in zip(inputs_of(layer), needed, strict=True)],
            )
            for layers in (OURS, PLAIN)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)

    @settings(deadline=None, max_examples=30)
    @given(
        batch=st.integers(1, 3), inputs=st.integers(1, 4), outputs=st.integers(1, 4), side=st.integers(2, 7),
        seed=st.integers(0, 10**6),
    )  # fmt: skip
    def test_derivatives_are_pytorchs_at_any_size(
        self, layer: str, batch: int, inputs: int, outputs: int, side: int, seed: int
    ) -> None:
        parts = inputs_of(layer, batch=batch, inputs=inputs, outputs=outputs, side=side, seed=seed)
        parts = [part.requires_grad_() for part in parts]
        for one, other in zip(*(second_derivatives(each, layer, parts, seed) for each in (OURS, PLAIN)), strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)

    def test_value_and_gradient_are_the_same_bits(self, layer: str) -> None:
        parts = [part.float().requires_grad_() for part in inputs_of(layer, batch=5, inputs=8, outputs=8, side=16)]
        pairs = zip(*(second_derivatives(each, layer, parts)[:4] for each in (OURS, PLAIN)), strict=True)
        # PyTorch's own norm has another formula for a gradient that is differentiated again.
        plain = getattr(PLAIN, layer)(*parts)
        along = torch.randn(plain.shape, generator=generator("directions", 0))
        gradient = torch.autograd.grad(plain, parts, along)
        (value, expected), *others = pairs
        assert torch.equal(value, expected)
        for (ours, _), once in zip(others, gradient, strict=True):
            assert torch.equal(ours, once)

    def test_float32_is_as_near_to_float64_as_pytorch_is(self, layer: str) -> None:
        exact = [part.requires_grad_() for part in inputs_of(layer, batch=8, inputs=8, outputs=8, side=16)]
        rounded = [part.detach().float().requires_grad_() for part in exact]
        expected = second_derivatives(PLAIN, layer, exact)
        ours, theirs = (second_derivatives(each, layer, rounded) for each in (OURS, PLAIN))
        for one, other, right in zip(ours, theirs, expected, strict=True):
            if not right.any():  # the derivative in a bias
                assert not one.any()
                continue
            assert relative_error(one, right) < max(4 * relative_error(other, right), 1e-6)


def test_a_convolution_is_ours_where_large_kernels_are_slow() -> None:
    assert second_order_layers(CUDA, curvature=True).convolution is OURS.convolution
    for device, curvature in ((CUDA, False), (CPU, True), (CPU, False)):
        layers = second_order_layers(device, curvature=curvature)
        assert layers.convolution is PLAIN.convolution
        assert layers.instance_norm is OURS.instance_norm
