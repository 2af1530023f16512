"""The ConvNet against PyTorch's own layers: same size, same function, same initial distribution."""

from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

from tests.support.references import convnet_module, module_of, relative_error, vector_of
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

NETWORKS = [
    ConvNet(channels=1, image_size=8, classes=3, depth=1, width=4),
    ConvNet(channels=3, image_size=8, classes=5, depth=2, width=6),
    ConvNet(channels=2, image_size=13, classes=2, depth=3, width=3),  # 13 → 6 → 3 → 1
    ConvNet(channels=3, image_size=32, classes=10),
]


@pytest.mark.parametrize(
    ("image_size", "classes", "depth", "parameters"),
    [(32, 10, 3, 320_010), (32, 100, 3, 504_420), (64, 200, 3, 1_938_120), (64, 200, 4, 857_160)],
)
def test_sizes_of_the_papers_networks(image_size: int, classes: int, depth: int, parameters: int) -> None:
    network = ConvNet(channels=3, image_size=image_size, classes=classes, depth=depth)
    assert network.parameters == parameters == sum(network.sizes)
    assert len(network.initial(generator(0))) == parameters


@pytest.mark.parametrize("network", NETWORKS, ids=str)
class TestAgainstModules:
    def test_the_layout_is_the_order_and_shape_of_the_modules_parameters(self, network: ConvNet) -> None:
        shapes = [tuple(parameter.shape) for parameter in convnet_module(network).parameters()]
        assert [shape for _, shape in network.layout] == shapes

    def test_logits_and_their_gradients(self, network: ConvNet) -> None:
        draws = generator("networks")
        theta = network.initial(draws).double()
        theta += 0.1 * torch.randn(theta.shape, dtype=theta.dtype, generator=draws)  # norms that are not 1 and 0
        shape = (7, network.channels, network.image_size, network.image_size)
        images = torch.randn(shape, dtype=torch.float64, generator=draws)
        module = module_of(network, theta)
        expected = module(images)
        theta.requires_grad_()
        logits = network.logits(theta, images)
        assert relative_error(logits.detach(), expected.detach()) < 1e-13
        weights = torch.randn(expected.shape, dtype=torch.float64, generator=draws)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), theta)
        expected_gradient = torch.autograd.grad((expected * weights).sum(), list(module.parameters()))
        assert relative_error(gradient, nn.utils.parameters_to_vector(expected_gradient)) < 1e-12

    def test_unflatten_gives_views(self, network: ConvNet) -> None:
        theta = network.initial(generator(0))
        network.unflatten(theta)["linear.bias"].fill_(7.0)
        assert (theta[-network.classes :] == 7).all()

    def test_each_image_is_normalised_alone(self, network: ConvNet) -> None:
        theta = network.initial(generator("alone")).double()
        shape = (5, network.channels, network.image_size, network.image_size)
        images = torch.randn(shape, dtype=torch.float64, generator=generator("images"))
        together = network.logits(theta, images)
        alone = torch.cat([network.logits(theta, image[None]) for image in images])
        assert relative_error(together, alone) < 1e-13


class TestInitial:
    NETWORK = ConvNet(channels=3, image_size=16, classes=10, depth=2, width=32)

    def test_weights_and_biases_are_uniform_within_one_over_root_fan_in(self) -> None:
        drawn = [self.NETWORK.unflatten(self.NETWORK.initial(generator("initial", k))) for k in range(40)]
        for layer, fan_in in (("conv0", 3 * 9), ("conv1", 32 * 9), ("linear", 32 * 16)):
            bound = fan_in**-0.5
            for part in ("weight", "bias"):
                values = torch.cat([parameters[f"{layer}.{part}"].flatten() for parameters in drawn])
                assert values.abs().max() <= bound
                assert stats.kstest(values.numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3, (layer, part)

    def test_the_distribution_is_that_of_pytorchs_layers(self) -> None:
        torch.manual_seed(0)
        theirs = [self.NETWORK.unflatten(vector_of(convnet_module(self.NETWORK))) for _ in range(20)]
        ours = [self.NETWORK.unflatten(self.NETWORK.initial(generator("ours", k))) for k in range(20)]
        for name, _ in self.NETWORK.layout:
            one, other = (torch.cat([parameters[name].flatten() for parameters in sets]) for sets in (ours, theirs))
            if name.startswith("norm"):
                assert torch.equal(one, other)
                assert (one == name.endswith("weight")).all()
            else:
                assert stats.ks_2samp(one.numpy(), other.numpy()).pvalue > 1e-3, name

    def test_is_decided_by_the_generator(self) -> None:
        one, again, other = (self.NETWORK.initial(generator("initial", k)) for k in (0, 0, 1))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert one.dtype == torch.float32


class TestTooDeep:
    def test_the_deepest_network_pools_to_one_pixel(self) -> None:
        assert ConvNet(channels=1, image_size=8, classes=2, depth=3, width=2).layout[-2] == ("linear.weight", (2, 2))

    @pytest.mark.parametrize(
        ("image_size", "depth", "remedy"),
        [(8, 4, "net_depth ≤ 3, or image_size ≥ 16"), (31, 5, "net_depth ≤ 4, or image_size ≥ 32"),
         (1, 1, "image_size ≥ 2")],
    )  # fmt: skip
    def test_pooling_an_image_away_is_refused(self, image_size: int, depth: int, remedy: str) -> None:
        with pytest.raises(
            ConfigError, match=rf"depth {depth} .*at least {2**depth} pixels, not {image_size}; use {remedy}$"
        ):
            ConvNet(channels=1, image_size=image_size, classes=2, depth=depth, width=2)

    @pytest.mark.parametrize("changed", [{"depth": -1}, {"width": 0}, {"classes": 0}, {"channels": 0}], ids=str)
    def test_a_network_of_nothing_is_refused(self, changed: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(changed))):
            ConvNet(**{"channels": 1, "image_size": 8, "classes": 2, "depth": 1, "width": 2, **changed})
