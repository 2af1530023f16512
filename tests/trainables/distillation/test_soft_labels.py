"""Default-order labels, DATM's soft labels against brute force, and how far those agree.

Source: docs/method.md, "Initial images and soft labels".
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.references import module_of
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.distillation.initialization import initial_images
from trainables.distillation.soft_labels import label_inconsistency, soft_labels
from trainables.experts.store import Trajectories
from trainables.networks.convnet import ConvNet

LAST = 6


@pytest.mark.parametrize(("ipc", "classes"), [(1, 10), (3, 4), (10, 200)])
def test_the_label_of_image_i_is_i_over_ipc(ipc: int, classes: int) -> None:
    labels = default_order_labels(ipc, classes)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [index // ipc for index in range(ipc * classes)]


class TestSoftLabels:
    @pytest.fixture
    def label(self, small_network: ConvNet, trajectories: Trajectories) -> Callable[..., Tensor]:
        def of(initialization: str, images: Tensor, experts: Trajectories = trajectories, epoch: int = LAST) -> Tensor:
            labels = soft_labels(
                initialization,
                images,
                network=small_network,
                trajectories=experts,
                epoch=epoch,
                device=torch.device("cpu"),
            )
            assert (labels.shape, labels.dtype) == ((len(images), 10), torch.float32)
            return labels

        return of

    @pytest.fixture
    def logits(self, small_network: ConvNet) -> Callable[[Tensor, Tensor], Tensor]:
        """An expert's logits by PyTorch's own layers."""

        def of(theta: Tensor, images: Tensor) -> Tensor:
            with torch.no_grad():
                found: Tensor = module_of(small_network, theta)(images)
            return found

        return of

    @pytest.mark.parametrize("epoch", [1, LAST])
    def test_are_the_mean_logits_of_the_experts_that_are_right(
        self,
        label: Callable[..., Tensor],
        logits: Callable[[Tensor, Tensor], Tensor],
        small_digits: ImageDataset,
        snapshots: list[list[Tensor]],
        epoch: Any,
    ) -> None:
        # After one epoch some images are right with all experts, some with one or two and some with none.
        ipc = 12
        images = real_images(small_digits, ipc, 0)
        by_expert = [logits(expert[epoch], images) for expert in snapshots]
        found, counts = label("correct", images, epoch=epoch), set()
        for image, row in enumerate(found):
            right = [each[image] for each in by_expert if int(each[image].argmax()) == image // ipc]
            counts.add(len(right))
            expected = torch.stack(right).mean(dim=0) if right else by_expert[0][image]
            assert torch.allclose(row, expected, rtol=1e-5, atol=1e-5)
        assert counts == {0, 1, 2, 3}

    def test_of_images_chosen_as_correct_agree_with_the_hard_ones(
        self,
        label: Callable[..., Tensor],
        small_digits: ImageDataset,
        small_network: ConvNet,
        trajectories: Trajectories,
    ) -> None:
        images = initial_images(
            "correct",
            small_digits,
            10,
            0,
            network=small_network,
            trajectories=trajectories,
            epoch=LAST,
            device=torch.device("cpu"),
        )
        assert label_inconsistency(label("correct", images), 10) == 0

    def test_of_real_images_are_expert_0s_right_or_wrong(
        self,
        label: Callable[..., Tensor],
        logits: Callable[[Tensor, Tensor], Tensor],
        small_digits: ImageDataset,
        snapshots: list[list[Tensor]],
    ) -> None:
        images = real_images(small_digits, 30, 0)
        found, expected = label("real", images, epoch=1), logits(snapshots[0][1], images)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
        wrong = (expected.argmax(dim=1) != default_order_labels(30, 10)).double().mean()
        assert label_inconsistency(found, 30) == float(wrong) > 0

    def test_where_no_expert_is_right_are_expert_0s(
        self, label: Callable[..., Tensor], small_digits: ImageDataset, small_network: ConvNet
    ) -> None:
        experts = []
        for said in (4, 7):
            theta = torch.zeros(small_network.parameters)
            small_network.unflatten(theta)["linear.bias"][said] = said
            experts.append([theta.numpy()])
        found = label("correct", real_images(small_digits, 1, 0), experts=Trajectories(experts), epoch=0)
        says_4, says_7 = (torch.eye(10)[said] * said for said in (4, 7))
        for image, row in enumerate(found):
            assert torch.equal(row, says_7 if image == 7 else says_4)


class TestInconsistency:
    def test_is_the_share_of_images_whose_largest_logit_is_elsewhere(self) -> None:
        labels = torch.tensor([[2.0, 1, 0], [0, 1, 5], [0, 3, 1], [4, 3, 1], [0, 0, 1], [0, -1, 2]])
        assert label_inconsistency(labels, ipc=2) == 2 / 6
        assert label_inconsistency(torch.eye(3).repeat_interleave(2, dim=0), ipc=2) == 0
        assert label_inconsistency(torch.eye(3).roll(1, dims=0), ipc=1) == 1
