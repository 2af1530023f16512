"""The winner's evaluation network as a model that MLflow loads and serves without this project's code."""

import json
import logging
import platform
import shutil
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn

from trainables.data.datasets import ImageDataset
from trainables.networks.convnet import ConvNet
from trainables.networks.layers import NORM_EPSILON
from trainables.networks.network import Network

__all__ = ["model_tags", "save_model", "standalone"]


def save_model(folder: Path, network: Network, dataset: ImageDataset, theta: Tensor) -> None:
    """Write a trained network as an MLflow model into a folder, in place of an earlier one.

    It is saved as a traced graph (PyTorch's `pt2`), which is loaded without unpickling. It runs on a CPU.
    Writing takes some seconds.

    Args:
        folder: The model's.
        network: The architecture.
        dataset: The dataset it classifies; two of its training images become the model's example.
        theta: The trained parameters, float32 [P].
    """
    shape = (network.channels, network.image_size, network.image_size)
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    example = dataset.pixels("train", [0, 1]).numpy() / np.float32(dataset.levels)  # one would fix the batch size at 1
    _load_flavor()
    mlflow.pytorch.save_model(
        standalone(network, dataset, theta),
        aside,
        signature=ModelSignature(
            Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))]),
            Schema([TensorSpec(np.dtype(np.float32), (-1, network.classes))]),
        ),
        input_example=example,
        conda_env=_environment(),
        metadata={
            "input": f"images [n, {', '.join(map(str, shape))}], intensities from 0 to 1",
            "output": "logits [n, classes]",
            "class_names": list(dataset.class_names),
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
        },
        serialization_format="pt2",
    )
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def standalone(network: Network, dataset: ImageDataset, theta: Tensor) -> nn.Sequential:
    """Return a network as PyTorch's own layers, from images as intensities in [0, 1] to logits.

    The first layers normalise, or whiten, as the dataset does; a whitening takes 4 d² bytes, d = ch · H · W.

    Args:
        network: The architecture.
        dataset: The dataset whose images it classifies.
        theta: The trained parameters, float32 [P].
    """
    layers = _convolutions(network, theta) if type(network) is ConvNet else [_Function(network, theta)]
    return nn.Sequential(*_normalisation(dataset), *layers).requires_grad_(False).eval()


class _Function(nn.Module):
    """A network that is a function of one parameter vector, as a layer."""

    def __init__(self, network: Network, theta: Tensor) -> None:
        super().__init__()
        self._network = network
        self.theta = nn.Parameter(theta.clone(), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self._network.logits(self.theta, images)


def _convolutions(network: ConvNet, theta: Tensor) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    inputs, side = network.channels, network.image_size
    for _ in range(network.depth):
        blocks += [
            nn.Conv2d(inputs, network.width, 3, padding=1),
            nn.GroupNorm(network.width, network.width, NORM_EPSILON),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
        inputs, side = network.width, side // 2
    trained = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(inputs * side * side, network.classes))
    trained.requires_grad_(False)
    for parameter, values in zip(trained.parameters(), network.unflatten(theta).values(), strict=True):
        parameter.copy_(values)
    return list(trained)


def _normalisation(dataset: ImageDataset) -> list[nn.Module]:
    """Return `ImageDataset.normalize` as layers on intensities."""
    layer: nn.Conv2d | nn.Linear
    if dataset.whitening is None:
        layer = nn.Conv2d(dataset.channels, dataset.channels, 1, groups=dataset.channels)
        std = torch.tensor(dataset.std)
        weight, bias = (1 / std).view(-1, 1, 1, 1), -torch.tensor(dataset.mean) / std
        layers: list[nn.Module] = [layer]
    else:
        side = dataset.image_size
        size = dataset.channels * side**2
        layer = nn.Linear(size, size)
        weight, bias = dataset.whitening.forward.T, -dataset.whitening.mean @ dataset.whitening.forward
        layers = [nn.Flatten(), layer, nn.Unflatten(1, (dataset.channels, side, side))]
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layers


def _environment() -> dict[str, object]:
    """Return the model's conda environment; without it MLflow would infer the requirements."""
    packages = [f"{package.__name__}=={'.'.join(package.__version__.split('.')[:2])}.*" for package in (mlflow, torch)]
    dependencies = [f"python={platform.python_version()}", "pip", {"pip": packages}]
    return {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": dependencies}


def model_tags(folder: Path, place: str, run_id: str) -> dict[str, str]:
    """Return the tags that tell MLflow's pages that a run has a model.

    Args:
        folder: The sweep's.
        place: The model's path in the folder, and among the run's artifacts.
        run_id: The run.
    """
    model = Model.load(str(folder / place))
    model.artifact_path, model.run_id = place, run_id
    return {"mlflow.log-model.history": json.dumps([model.get_tags_dict()])}


def _load_flavor() -> None:
    """Import MLflow's flavor of PyTorch, whose `logging.basicConfig(level=ERROR)` would silence our warnings."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    import mlflow.pytorch  # noqa: F401

    root.setLevel(level)
    root.handlers[:] = handlers
