"""The `datasets` package, with which people read files of the hub: without a network, with a cache of the test."""

import os
from pathlib import Path
from typing import Any

import pytest


def load_offline(monkeypatch: pytest.MonkeyPatch, cache: Path, kind: str | Path, **options: Any) -> Any:
    """Return what `datasets.load_dataset` loads as its train split.

    Args:
        monkeypatch: Keeps the package from the network and from the home folder.
        cache: A folder of the test's own.
        kind: A packaged reader such as `parquet`, or a folder.
        options: As `load_dataset` takes them.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.setenv(name, os.fspath(cache))
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset(os.fspath(kind), cache_dir=os.fspath(cache), **options)
    assert list(found) == ["train"]
    return found["train"]
