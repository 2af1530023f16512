"""Default-order labels. METHOD §3."""

import pytest
import torch

from trainables.labels import default_order_labels


@pytest.mark.parametrize(("ipc", "classes"), [(1, 10), (3, 4), (10, 200)])
def test_the_label_of_image_i_is_i_over_ipc(ipc, classes):
    labels = default_order_labels(ipc, classes)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [index // ipc for index in range(ipc * classes)]
