"""Teachers: trained once, kept by content, refused when damaged; and experts as teachers.

Source: docs/method.md, "Label regimes".
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.config.protocol import Protocol
from trainables.data import datasets
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError, DatasetError
from trainables.evaluation.teachers import teacher_from_experts, trained_teacher
from trainables.evaluation.training import measure_network, train_network
from trainables.experts.store import Trajectories
from trainables.networks.convnet import ConvNet
from trainables.seeding import seed_of

CPU = torch.device("cpu")
PROTOCOL = dataclasses.replace(Protocol.challenge(4), batch_size=64)
DSA = Augmentation(families=("crop", "rotate"), align_corners=False)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, small_digits: ImageDataset, small_network: ConvNet
) -> tuple[Path, Tensor]:
    """A folder with one teacher, and the parameters that were given when it was trained."""
    folder = tmp_path_factory.mktemp("made") / "teachers"
    return folder, trained_teacher(folder, small_network, small_digits, PROTOCOL, DSA, 5, CPU)


@pytest.fixture
def copied(made: tuple[Path, Tensor], tmp_path: Path) -> Path:
    """A folder of the test's own with a copy of that teacher's file."""
    (source,) = made[0].iterdir()
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    return path


class TestTrainedTeacher:
    def test_is_the_training_split_under_the_protocol(
        self, made: tuple[Path, Tensor], small_digits: ImageDataset, small_network: ConvNet
    ) -> None:
        images, labels = small_digits.normalized("train"), small_digits.labels("train")
        options: dict[str, Any] = {"protocol": PROTOCOL, "augmentation": DSA}
        expected = train_network(small_network, images.__getitem__, labels, seed=seed_of(5, "teacher"), **options)
        assert torch.equal(made[1], expected)
        assert measure_network(small_network, made[1], small_digits, "validation").accuracy > 0.5

    def test_is_not_trained_twice(
        self, made: tuple[Path, Tensor], copied: Path, digits_path: Path, small_network: ConvNet
    ) -> None:
        """The second call has no training images to train on."""
        without_images = datasets.load(digits_path, ("validation",))
        before = copied.stat()
        again = trained_teacher(copied.parent, small_network, without_images, PROTOCOL, DSA, 5, CPU)
        assert torch.equal(again, made[1])
        after = copied.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert list(copied.parent.iterdir()) == [copied]

    def test_everything_that_shapes_it_makes_another(
        self,
        made: tuple[Path, Tensor],
        copied: Path,
        digits_path: Path,
        small_digits: ImageDataset,
        small_network: ConvNet,
    ) -> None:
        without_images = datasets.load(digits_path, ("validation",))
        given: dict[str, Any] = {
            "network": small_network, "dataset": without_images, "protocol": PROTOCOL, "augmentation": DSA, "seed": 5
        }  # fmt: skip
        trained_teacher(copied.parent, **given, device=CPU)
        for changed in (
            {"network": dataclasses.replace(small_network, width=9)},
            {"dataset": dataclasses.replace(without_images, digest="another")},
            {"protocol": dataclasses.replace(PROTOCOL, learning_rate=0.02)},
            {"augmentation": dataclasses.replace(DSA, align_corners=True)},
            {"seed": 6},
        ):
            with pytest.raises(DatasetError, match="split 'train' is not loaded"):  # it would have to be trained
                trained_teacher(copied.parent, **{**given, **changed}, device=CPU)

    def test_one_that_is_missing_is_made_again_to_the_bit(
        self, made: tuple[Path, Tensor], tmp_path: Path, small_digits: ImageDataset, small_network: ConvNet
    ) -> None:
        again = trained_teacher(tmp_path / "new" / "folder", small_network, small_digits, PROTOCOL, DSA, 5, CPU)
        assert torch.equal(again, made[1])

    def test_what_is_given_does_not_hang_on_the_file(
        self, made: tuple[Path, Tensor], copied: Path, small_digits: ImageDataset, small_network: ConvNet
    ) -> None:
        theta = trained_teacher(copied.parent, small_network, small_digits, PROTOCOL, DSA, 5, CPU)
        theta += 1
        copied.write_bytes(bytes(copied.stat().st_size))
        assert torch.equal(theta, made[1] + 1)

    def test_soft_labels_are_none_for_a_teacher(
        self, tmp_path: Path, small_digits: ImageDataset, small_network: ConvNet
    ) -> None:
        with pytest.raises(ConfigError, match=r"where the protocol has a temperature, not torch\.int64"):
            trained_teacher(tmp_path, small_network, small_digits, Protocol.regime("soft"), DSA, 5, CPU)
        assert list(tmp_path.iterdir()) == []


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit_off(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def nothing(content: bytes) -> bytes:
    return b""


def text(content: bytes) -> bytes:
    return b"not a teacher\n" * 100


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [(half, "truncated"), (nothing, "truncated"), (text, "truncated"), (one_bit_off, "damaged, its SHA-256")],
    )
    def test_is_refused_in_one_line_and_left_there(
        self, copied: Path, small_digits: ImageDataset, small_network: ConvNet, damage: Any, message: str
    ) -> None:
        copied.write_bytes(damage(copied.read_bytes()))
        content = copied.read_bytes()
        with pytest.raises(
            DatasetError, match=rf"{copied.name} is {message}.*: delete it, it is made again$"
        ) as caught:
            trained_teacher(copied.parent, small_network, small_digits, PROTOCOL, DSA, 5, CPU)
        assert len(str(caught.value).splitlines()) == 1
        assert copied.read_bytes() == content

    def test_another_teacher_under_its_name_is_refused(
        self, made: tuple[Path, Tensor], copied: Path, small_digits: ImageDataset, small_network: ConvNet
    ) -> None:
        theirs = trained_teacher(copied.parent, small_network, small_digits, PROTOCOL, DSA, 6, CPU)
        (other,) = set(copied.parent.iterdir()) - {copied}
        other.replace(copied)
        with pytest.raises(DatasetError, match="holds another teacher than its name says: delete it"):
            trained_teacher(copied.parent, small_network, small_digits, PROTOCOL, DSA, 5, CPU)
        copied.unlink()
        assert not torch.equal(theirs, made[1])
        assert torch.equal(trained_teacher(copied.parent, small_network, small_digits, PROTOCOL, DSA, 5, CPU), made[1])


class TestTeacherFromExperts:
    def test_is_the_expert_at_that_epoch(
        self,
        snapshots: list[list[Tensor]],
        trajectories: Trajectories,
        small_network: ConvNet,
        small_digits: ImageDataset,
    ) -> None:
        images = small_digits.normalized("validation")
        for expert, epoch in ((0, 6), (2, 1)):
            teacher = teacher_from_experts(trajectories, small_network, epoch, expert)
            assert torch.equal(teacher(images), small_network.logits(snapshots[expert][epoch], images))
        assert torch.equal(teacher_from_experts(trajectories, small_network, 6).theta, snapshots[0][6])

    @pytest.mark.parametrize(
        ("epoch", "expert", "message"),
        [
            (6, 3, "expert lies in 0 to 2, not 3"),
            (6, -1, "expert lies in 0 to 2, not -1"),
            (7, 0, "epoch must be one that the expert has, not 7"),
            (-1, 0, "epoch must be at least 0, not -1"),
        ],
    )
    def test_one_that_is_not_there_is_refused(
        self, trajectories: Trajectories, small_network: ConvNet, epoch: int, expert: int, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            teacher_from_experts(trajectories, small_network, epoch, expert)

    def test_another_network_is_refused(self, trajectories: Trajectories) -> None:
        other = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=8)
        with pytest.raises(ConfigError, match=f"as many parameters as the experts, .* not {other.parameters}"):
            teacher_from_experts(trajectories, other, 6)
