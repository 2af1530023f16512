"""SRe2L: the batch-norm network against PyTorch's layers, the recovery's loss against hooks on them, and its images."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import hflip, resized_crop

from tests.support.references import relative_error
from trainables.baselines.rded import draw_crops
from trainables.baselines.squeeze import squeeze, squeeze_protocol, squeezed
from trainables.baselines.sre2l import Recovery, recover, recovery_loss, statistics_distances
from trainables.config.protocol import Protocol
from trainables.data import datasets
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError, DatasetError
from trainables.networks.batch_norm import BatchNormConvNet
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

CPU = torch.device("cpu")
SHAPE = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=8)
TINY = ConvNet(channels=2, image_size=8, classes=3, depth=2, width=3)
QUICK = squeeze_protocol(6)


def module_of(shape: ConvNet) -> nn.Sequential:
    """The network as PyTorch's own layers, with torch.nn.BatchNorm2d."""
    layers, inputs, side = [], shape.channels, shape.image_size
    for _ in range(shape.depth):
        convolution = nn.Conv2d(inputs, shape.width, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(shape.width), nn.ReLU(), nn.AvgPool2d(2)]
        inputs, side = shape.width, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * side * side, shape.classes))


def norms_of(module: nn.Sequential) -> list[nn.BatchNorm2d]:
    return [layer for layer in module if isinstance(layer, nn.BatchNorm2d)]


def running(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance of a layer."""
    assert layer.running_mean is not None and layer.running_var is not None
    return layer.running_mean, layer.running_var


def as_module(network: BatchNormConvNet) -> nn.Sequential:
    """A trained network as PyTorch's layers in evaluation mode."""
    module = module_of(network.shape).to(network.theta.dtype)
    nn.utils.vector_to_parameters(network.theta.clone(), module.parameters())
    for layer, mean, variance in zip(norms_of(module), network.means, network.variances, strict=True):
        for own, given in zip(running(layer), (mean, variance), strict=True):
            own.copy_(given)
    return module.eval()


def random_network(shape: ConvNet = TINY) -> BatchNormConvNet:
    """A network in float64 whose norms are none of 0 and 1."""
    draws = generator("random network")
    theta = shape.initial(draws).double()
    size = (shape.depth, shape.width)
    return BatchNormConvNet(
        shape=shape,
        theta=theta + 0.1 * torch.randn(theta.shape, dtype=theta.dtype, generator=draws),
        means=torch.randn(size, dtype=torch.float64, generator=draws),
        variances=torch.rand(size, dtype=torch.float64, generator=draws) + 0.5,
    )


def random_images(shape: ConvNet = TINY, count: int = 4) -> Tensor:
    size = (count, shape.channels, shape.image_size, shape.image_size)
    return torch.randn(size, dtype=torch.float64, generator=generator("random images"))


def learned(
    small_digits: ImageDataset, protocol: Protocol = QUICK, families: tuple[str, ...] = (), seed: int = 0
) -> BatchNormConvNet:
    return squeeze(SHAPE, small_digits, protocol, Augmentation(families=families), seed, CPU)


@pytest.fixture(scope="module")
def network(small_digits: ImageDataset) -> BatchNormConvNet:
    return learned(small_digits)


class TestNetwork:
    def test_logits_are_those_of_pytorchs_layers(self) -> None:
        network, images = random_network(), random_images()
        module = as_module(network)
        assert relative_error(network(images), module(images).detach()) < 1e-13
        assert not network(images).requires_grad
        assert network.observed(images.requires_grad_())[0].requires_grad

    def test_each_image_passes_as_it_would_alone(self) -> None:
        network, images = random_network(), random_images()
        assert relative_error(network(images), torch.cat([network(image[None]) for image in images])) < 1e-13

    @pytest.mark.parametrize("families", [(), ("crop", "flip")])
    def test_training_is_that_of_pytorchs_layers_and_optimiser(
        self, small_digits: ImageDataset, families: tuple[str, ...]
    ) -> None:
        protocol, seed = Protocol(epochs=2, learning_rate=0.1, schedule="cosine"), 4
        augmentation = Augmentation(families=families)
        ours = squeeze(SHAPE, small_digits, protocol, augmentation, seed, CPU)
        module, start = module_of(SHAPE), SHAPE.initial(generator(seed, "squeeze", "initial"))
        nn.utils.vector_to_parameters(start.clone(), module.parameters())
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
        images, labels = small_digits.normalized("train"), small_digits.labels("train")
        for epoch in range(2):
            draws = generator(seed, "squeeze", "epoch", epoch)
            for rows in torch.randperm(len(labels), generator=draws).split(256):
                batch = augmentation.apply(images[rows], augmentation.draw(len(rows), 8, draws))
                optimizer.zero_grad()
                F.cross_entropy(module(batch), labels[rows]).backward()
                optimizer.step()
            schedule.step()
        theirs = nn.utils.parameters_to_vector(module.parameters()).detach()
        assert relative_error(ours.theta - start, theirs - start) < 1e-4
        means, variances = zip(*(running(layer) for layer in norms_of(module)), strict=True)
        assert relative_error(ours.means, torch.stack(means)) < 1e-4
        assert relative_error(ours.variances, torch.stack(variances)) < 1e-4

    def test_learns_the_digits(self, small_digits: ImageDataset, network: BatchNormConvNet) -> None:
        predicted = network(small_digits.normalized("validation")).argmax(dim=1)
        assert float((predicted == small_digits.labels("validation")).double().mean()) > 0.9

    def test_the_seed_and_nothing_else_decides(self, small_digits: ImageDataset, network: BatchNormConvNet) -> None:
        torch.manual_seed(0)
        before = torch.random.get_rng_state()
        again, other = learned(small_digits), learned(small_digits, seed=1)
        assert torch.equal(torch.random.get_rng_state(), before)
        for name in ("theta", "means", "variances"):
            assert torch.equal(getattr(again, name), getattr(network, name))
            assert not torch.equal(getattr(other, name), getattr(network, name))

    def test_the_default_protocol_is_sre2ls(self) -> None:
        protocol = squeeze_protocol()
        assert (protocol.epochs, protocol.learning_rate, protocol.batch_size) == (200, 0.1, 128)
        assert (protocol.momentum, protocol.weight_decay, protocol.schedule) == (0.9, 5e-4, "cosine")

    @pytest.mark.parametrize(
        "protocol", [Protocol(), Protocol.regime("soft"), replace(QUICK, temperature=2.0)], ids=str
    )
    def test_a_training_of_another_kind_is_refused(self, small_digits: ImageDataset, protocol: Protocol) -> None:
        with pytest.raises(ConfigError, match=r"take squeeze_protocol\(\)$"):
            learned(small_digits, protocol)

    def test_a_training_that_diverges_is_refused(self, small_digits: ImageDataset) -> None:
        with pytest.raises(ConfigError, match=r"stay finite, .* learning_rate 1e\+30: lower it$"):
            learned(small_digits, replace(QUICK, learning_rate=1e30))


class TestCache:
    def kept(self, folder: Path, small_digits: ImageDataset, **changed: Any) -> BatchNormConvNet:
        options: dict[str, Any] = {
            "shape": SHAPE,
            "protocol": squeeze_protocol(1),
            "augmentation": Augmentation(),
            "seed": 0,
            **changed,
        }
        return squeezed(folder, dataset=small_digits, device=CPU, **options)

    def test_the_second_time_nothing_is_trained(self, tmp_path: Path, small_digits: ImageDataset) -> None:
        folder = tmp_path / "new" / "teachers"
        first = self.kept(folder, small_digits)
        (path,) = folder.iterdir()
        os.utime(path, ns=(1, 1))
        # Whoever trains reads the training images.
        without = replace(small_digits, splits={})
        second = self.kept(folder, without)
        assert path.stat().st_mtime_ns == 1
        fresh = squeeze(SHAPE, small_digits, squeeze_protocol(1), Augmentation(), 0, CPU)
        for name in ("theta", "means", "variances"):
            assert torch.equal(getattr(first, name), getattr(fresh, name))
            assert torch.equal(getattr(second, name), getattr(fresh, name))

    def test_whatever_shapes_it_has_a_file_of_its_own(self, tmp_path: Path, small_digits: ImageDataset) -> None:
        changes: tuple[dict[str, Any], ...] = (
            {},
            {"shape": replace(SHAPE, width=4)},
            {"protocol": replace(squeeze_protocol(1), learning_rate=0.05)},
            {"augmentation": Augmentation(families=("flip",))},
            {"seed": 1},
        )
        for number, changed in enumerate(changes, start=1):
            self.kept(tmp_path, small_digits, **changed)
            assert len(list(tmp_path.iterdir())) == number
        self.kept(tmp_path, replace(small_digits, digest="another"))
        assert len(list(tmp_path.iterdir())) == len(changes) + 1

    @pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "other file"])
    def test_a_damaged_or_foreign_file_is_refused_in_a_line(
        self, tmp_path: Path, small_digits: ImageDataset, damage: str
    ) -> None:
        self.kept(tmp_path, small_digits)
        (path,) = tmp_path.iterdir()
        content = path.read_bytes()
        if damage == "foreign":
            self.kept(tmp_path, small_digits, seed=1)
            (other,) = set(tmp_path.iterdir()) - {path}
            path.write_bytes(other.read_bytes())
        else:
            flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
            path.write_bytes({"cut": content[:-9], "flipped": flipped, "other file": b"no safetensors"}[damage])
        with pytest.raises(DatasetError, match=f"{path.name} .*: delete it, it is made again$") as caught:
            self.kept(tmp_path, small_digits)
        assert "\n" not in str(caught.value)

    def test_a_training_that_fails_leaves_nothing(self, tmp_path: Path, small_digits: ImageDataset) -> None:
        with pytest.raises(ConfigError):
            self.kept(tmp_path / "none", small_digits, protocol=replace(QUICK, learning_rate=1e30))
        assert not (tmp_path / "none").exists()


def hooked_loss(
    network: BatchNormConvNet, images: Tensor, labels: Tensor, recovery: Recovery
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss by hooks on torch.nn.BatchNorm2d: cross-entropy, and the distances of every layer."""
    module, distances = as_module(network), []

    def compare(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        channels = inputs[0].transpose(0, 1).flatten(1)
        mean = channels.sum(dim=1) / channels.shape[1]
        variance = (channels - mean[:, None]).square().sum(dim=1) / channels.shape[1]
        running_mean, running_var = running(layer)
        distances.append((mean - running_mean).norm() + (variance - running_var).norm())

    for layer in norms_of(module):
        layer.register_forward_hook(compare)
    cross_entropy = F.cross_entropy(module(images), labels)
    weights = [recovery.first_layer_weight] + [1.0] * (len(distances) - 1)
    statistics: Any = sum(weight * distance for weight, distance in zip(weights, distances, strict=True))
    return cross_entropy + recovery.statistics_weight * statistics, cross_entropy, statistics


class TestLoss:
    LABELS = torch.tensor([0, 2, 1, 2])

    @pytest.mark.parametrize(
        "recovery", [Recovery(), Recovery(statistics_weight=0.7, first_layer_weight=10.0)], ids=str
    )
    def test_is_that_of_hooks_on_pytorchs_batch_norm(self, recovery: Recovery) -> None:
        network, images = random_network(), random_images()
        for ours, theirs in zip(
            recovery_loss(network, images, self.LABELS, recovery),
            hooked_loss(network, images, self.LABELS, recovery),
            strict=True,
        ):
            assert float(ours) == pytest.approx(float(theirs.detach()), rel=1e-12)

    @pytest.mark.parametrize("weight", [0.0, 0.01, 3.0])
    def test_gradient_is_that_of_finite_differences(self, weight: float) -> None:
        network, recovery = random_network(), Recovery(statistics_weight=weight, first_layer_weight=2.0)
        images = random_images().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x: recovery_loss(network, x, self.LABELS, recovery).total, images, eps=1e-6, atol=1e-6
        )

    def test_without_weight_it_is_the_cross_entropy(self) -> None:
        network, images = random_network(), random_images()
        loss = recovery_loss(network, images, self.LABELS, Recovery(statistics_weight=0.0))
        assert float(loss.total) == float(loss.cross_entropy) == float(F.cross_entropy(network(images), self.LABELS))

    def test_is_nought_where_the_batch_has_the_running_statistics_and_its_gradient_finite(self) -> None:
        network, images = random_network(), random_images().requires_grad_()
        for layer in range(TINY.depth):  # what enters a layer hangs on the statistics of those before
            entering = network.observed(images.detach())[1][layer].transpose(0, 1).flatten(1)
            network.means[layer] = entering.mean(dim=1)
            network.variances[layer] = entering.var(dim=1, correction=0)
        distances = statistics_distances(network.observed(images)[1], network.means, network.variances)
        assert float(distances.detach().max()) < 1e-12
        (gradient,) = torch.autograd.grad(distances.sum(), images)
        assert bool(torch.isfinite(gradient).all())

    def test_rounds_side_by_side_know_nothing_of_each_other(self) -> None:
        network, images, recovery = random_network(), random_images(count=12), Recovery(first_layer_weight=3.0)
        labels = self.LABELS.repeat(3)
        together = recovery_loss(network, images, labels, recovery, rounds=3)
        alone = [recovery_loss(network, part, self.LABELS, recovery) for part in images.split(4)]
        for total, parts in zip(together, zip(*alone, strict=True), strict=True):
            assert float(total) == pytest.approx(sum(map(float, parts)), rel=1e-12)
        distances = statistics_distances(network.observed(images)[1], network.means, network.variances, rounds=3)
        assert distances.shape == (TINY.depth, 3)

    def test_distances_by_hand(self) -> None:
        # Two images of one pixel and two channels: means 2 and 0, biased variances 1 and 4.
        entering = torch.tensor([[1.0, 2.0], [3.0, -2.0]]).view(2, 2, 1, 1)
        distances = statistics_distances([entering], torch.tensor([[5.0, 4.0]]), torch.tensor([[1.0, 2.0]]))
        assert distances.tolist() == [[5.0 + 2.0]]


def bounds(dataset: ImageDataset) -> tuple[Tensor, Tensor]:
    """Least and largest normalised value that a picture can have, [ch, 1, 1] each."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
    return -mean / std, (1 - mean) / std


class TestRecover:
    RECOVERY = Recovery(iterations=60)

    @pytest.fixture(scope="class")
    def recovered(self, small_digits: ImageDataset, network: BatchNormConvNet) -> Tensor:
        return recover(network, small_digits, 3, 0, recovery=self.RECOVERY)

    def test_images_are_of_their_class_to_the_network(self, network: BatchNormConvNet, recovered: Tensor) -> None:
        assert (recovered.shape, recovered.dtype) == ((30, 1, 8, 8), torch.float32)
        right = network(recovered).argmax(dim=1) == torch.arange(10).repeat_interleave(3)
        assert int(right.sum()) >= 29

    def test_its_own_loss_is_lower_and_so_are_both_its_parts(
        self, network: BatchNormConvNet, recovered: Tensor
    ) -> None:
        labels = torch.arange(10)
        for index in range(3):
            noise = torch.randn(10, 1, 8, 8, generator=generator(0, "sre2l", "noise", index))
            before, after = (
                recovery_loss(network, images, labels, self.RECOVERY) for images in (noise, recovered[index::3])
            )
            assert float(after.total) < 0.2 * float(before.total)
            assert all(float(later) < float(earlier) for later, earlier in zip(after, before, strict=True))

    def test_more_weight_brings_the_statistics_nearer(
        self, small_digits: ImageDataset, network: BatchNormConvNet
    ) -> None:
        labels, statistics = torch.arange(10), []
        for weight in (0.0, 0.01, 1.0):
            images = recover(network, small_digits, 1, 0, recovery=replace(self.RECOVERY, statistics_weight=weight))
            statistics.append(float(recovery_loss(network, images, labels, self.RECOVERY).statistics))
        assert statistics[0] > statistics[1] > statistics[2]

    def test_pixels_stay_in_the_range_of_pictures(self, small_digits: ImageDataset, recovered: Tensor) -> None:
        low, high = bounds(small_digits)
        assert float((low - recovered).max()) <= 1e-6
        assert float((recovered - high).max()) <= 1e-6
        assert torch.equal(small_digits.normalize(small_digits.displayable(recovered) * small_digits.levels), recovered)

    def test_whitened_pixels_stay_in_the_range_of_pictures_too(self, small_digits: ImageDataset) -> None:
        whitened = datasets.load(datasets.whiten(small_digits.path))
        images = recover(learned(whitened), whitened, 1, 0, recovery=Recovery(iterations=20))
        assert whitened.whitening is not None
        intensities = whitened.whitening.undo(images)
        assert float(intensities.min()) > -1e-5
        assert float(intensities.max()) < 1 + 1e-5
        assert float((intensities < 1e-5).double().mean()) > 0.05  # or there was nothing to clip

    def test_the_seed_decides(self, small_digits: ImageDataset, network: BatchNormConvNet, recovered: Tensor) -> None:
        again, other = (recover(network, small_digits, 3, seed, recovery=self.RECOVERY) for seed in (0, 1))
        assert torch.equal(again, recovered)
        assert not torch.equal(other, recovered)

    def test_a_round_comes_out_as_alone_and_fewer_images_begin_the_more(
        self, small_digits: ImageDataset, network: BatchNormConvNet
    ) -> None:
        dataset, recovery = replace(small_digits, augmentation=("crop", "flip")), Recovery(iterations=4)
        one, many = (recover(network, dataset, ipc, 0, recovery=recovery) for ipc in (1, 3))
        assert relative_error(many[0::3], one) < 1e-3
        assert relative_error(many[1::3], one) > 0.1

    def test_more_images_than_go_side_by_side(self, small_digits: ImageDataset, network: BatchNormConvNet) -> None:
        done: list[int] = []
        images = recover(network, small_digits, 27, 0, recovery=Recovery(iterations=1), progress=done.append)
        assert done == [25, 27]  # 250 images of 10 classes, and 20 more
        alone = recover(network, small_digits, 1, 0, recovery=Recovery(iterations=1))
        assert relative_error(images[0::27], alone) < 1e-3
        assert len({image.numpy().tobytes() for image in images}) == 270

    @pytest.mark.parametrize("families", [(), ("flip",), ("color", "crop"), ("crop", "flip")], ids=str)
    def test_updates_are_adams_on_augmented_views(
        self, small_digits: ImageDataset, network: BatchNormConvNet, families: tuple[str, ...]
    ) -> None:
        """Five iterations by torch.optim.Adam and torchvision's transforms."""
        dataset, recovery = replace(small_digits, augmentation=families), Recovery(iterations=5, learning_rate=0.1)
        images = torch.randn(10, 1, 8, 8, generator=generator(7, "sre2l", "noise", 0)).requires_grad_()
        optimizer = torch.optim.Adam([images], lr=0.1, betas=(0.5, 0.9))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
        low, high = bounds(small_digits)
        flips = 0
        for iteration in range(5):
            draws, view = generator(7, "sre2l", "view", 0, iteration), images
            if "crop" in families:
                ((top, left, size),) = draw_crops(1, 8, draws).tolist()
                view = resized_crop(view, top, left, size, size, [8, 8], antialias=True)
            if "flip" in families and float(torch.rand((), generator=draws)) < 0.5:
                view, flips = hflip(view), flips + 1
            optimizer.zero_grad()
            hooked_loss(network, view, torch.arange(10), recovery)[0].backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                images.copy_(images.clamp(low, high))
        assert ("flip" in families) == (0 < flips < 5)
        assert relative_error(recover(network, dataset, 1, 7, recovery=recovery), images.detach()) < 1e-4

    def test_crops_that_keep_everything_are_none(self, small_digits: ImageDataset, network: BatchNormConvNet) -> None:
        cropped = replace(small_digits, augmentation=("crop",))
        whole, plain, other = (
            recover(network, dataset, 1, 0, recovery=Recovery(iterations=3, smallest_crop=smallest))
            for dataset, smallest in ((cropped, 1.0), (small_digits, 0.08), (cropped, 0.08))
        )
        assert torch.equal(whole, plain)
        assert not torch.equal(other, plain)


class TestSettings:
    def test_defaults_are_the_papers(self) -> None:
        recovery = Recovery()
        assert (recovery.iterations, recovery.learning_rate, recovery.statistics_weight) == (4000, 0.25, 0.01)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("iterations", 0),
            ("iterations", 1.5),
            ("learning_rate", 0.0),
            ("learning_rate", float("nan")),
            ("statistics_weight", -1.0),
            ("first_layer_weight", float("inf")),
            ("smallest_crop", 0.0),
            ("smallest_crop", 1.1),
        ],
    )
    def test_what_cannot_work_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=f"^{name} of a recovery must .*, not {value}$"):
            Recovery(**{name: value})

    def test_no_images_a_class_is_refused(self, small_digits: ImageDataset, network: BatchNormConvNet) -> None:
        with pytest.raises(ConfigError, match="ipc must be at least 1, not 0"):
            recover(network, small_digits, 0, 0, recovery=Recovery())
