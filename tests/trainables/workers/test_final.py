"""A network of the finals is trained on the same set however the set is described."""

from pathlib import Path

import numpy as np
import torch

from trainables.config.arithmetic import IEEE
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.real_images import real_images, real_rows
from trainables.networks.convnet import ConvNet
from trainables.storage.checkpoints import write_checkpoint
from trainables.workers.final import train_and_test


def test_images_rows_and_a_stored_set_give_the_same_network(
    digits_path: Path, small_digits: ImageDataset, small_network: ConvNet, tmp_path: Path
) -> None:
    images, rows = real_images(small_digits, 2, 3), real_rows(small_digits, 2, 3)
    assert torch.equal(images, small_digits.normalized("train", rows))
    places = [str(tmp_path / name) for name in ("images", "rows")]
    write_checkpoint(places[0], {"images": images})
    write_checkpoint(places[1], {"rows": rows})
    protocol = Protocol(epochs=3, drop_after_epochs=2, learning_rate=0.05)
    found = [
        train_and_test(digits_path, described, small_network, protocol, Augmentation(), 5, "cpu", IEEE)
        for described in (images.numpy(), rows.numpy(), *places)
    ]
    metrics, theta = found[0]
    assert np.isfinite(theta).all() and 0 <= metrics.accuracy <= 1
    for other_metrics, other in found[1:]:
        assert np.array_equal(other, theta)
        assert other_metrics.accuracy == metrics.accuracy
