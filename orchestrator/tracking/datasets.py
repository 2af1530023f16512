"""A sweep's datasets as MLflow shows them among the parent run's inputs: the real images, and the synthetic set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.data.schema import TensorDatasetSchema
from mlflow.types import Schema, TensorSpec
from safetensors import safe_open

from trainables.data.datasets import ImageDataset
from trainables.storage.shared_file import SharedFile
from trainables.storage.shared_folder import addressed, sha256_of

__all__ = ["real_dataset", "synthetic_dataset"]

_DIGEST_CHARACTERS = 10  # MLflow shows them beside the name, and recommends at most 10


def real_dataset(dataset: ImageDataset, file: Path | SharedFile) -> dict[str, Any]:
    """Return the dataset that is distilled as MLflow logs it: the payload of an `mlflow_service.INPUT`.

    Args:
        dataset: At least its training split; the test split is not read.
        file: The prepared dataset, as nodes receive it.
    """
    shape, dtype = dataset.split("train").images.shape[1:], np.dtype(np.uint8)
    place = file.folder.place(addressed(file.name, file.sha256)) if isinstance(file, SharedFile) else str(file)
    profile = {
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "classes": dataset.classes,
        "validation_share": dataset.validation_share,
        "whitened": dataset.whitening is not None,
        "sha256": dataset.digest,
    }
    labels = TensorSpec(np.dtype(np.int64), (-1,), "labels")
    return _input("training", dataset.name, place, TensorSpec(dtype, (-1, *shape), "images"), labels, profile)


def synthetic_dataset(path: Path, run_id: str) -> dict[str, Any]:
    """Return a file of `write_synthetic` as MLflow logs it: the payload of an `mlflow_service.INPUT`.

    Args:
        path: The file.
        run_id: The run that has the file among its artifacts.
    """
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        shapes = {name: file.get_slice(name).get_shape() for name in ("images", "labels")}
    soft = len(shapes["labels"]) > 1
    profile = {
        "images": shapes["images"][0],
        "images_per_class": int(metadata["ipc"]),
        "labels": "soft" if soft else "hard, in default order",
        "method": metadata["method"],
        "sha256": sha256_of(path),
    }
    images = TensorSpec(np.dtype(np.float32), (-1, *shapes["images"][1:]), "images")
    labels = TensorSpec(np.dtype(np.float32 if soft else np.int64), (-1, *shapes["labels"][1:]), "labels")
    name = f"{metadata['dataset']}-synthetic"
    return _input("distilled", name, f"runs:/{run_id}/{path.name}", images, labels, profile)


def _input(
    context: str, name: str, source: str, images: TensorSpec, labels: TensorSpec, profile: Mapping[str, Any]
) -> dict[str, Any]:
    scheme = source.partition("://")[0]
    return {
        "context": context,
        "name": name,
        "digest": profile["sha256"][:_DIGEST_CHARACTERS],
        # MLflow has no source type for runs:/ addresses; its local type downloads from them.
        "source_type": scheme if scheme in ("s3", "gs") else "local",
        "source": json.dumps({"uri": source}),
        "schema": json.dumps(TensorDatasetSchema(Schema([images]), Schema([labels])).to_dict()),
        "profile": json.dumps(profile),
    }
