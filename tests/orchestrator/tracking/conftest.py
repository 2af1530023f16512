"""What the tests of tracking share: a workdir, what a sweep over the digits works on, and short pauses."""

import logging
from pathlib import Path

import pytest
import torch

from orchestrator.stages.inputs import Inputs, prepare_inputs
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.console import make_console
from orchestrator.tracking import sender as sender_module
from orchestrator.tracking.served_model import save_model
from tests.support.builders import sweep_settings


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """One for all tests of a file: MLflow takes seconds to make its database."""
    return Workdir(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What a sweep over the digits works on; no test changes it."""
    workdir = Workdir(tmp_path_factory.mktemp("inputs"))
    return prepare_inputs(sweep_settings(name="asked", workdir=workdir), make_console(quiet=True))


@pytest.fixture(scope="session")
def theta(inputs: Inputs) -> torch.Tensor:
    """A network's parameters, float32 [P]."""
    return inputs.network.initial(torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def model(inputs: Inputs, theta: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder; it takes long to make, and no test changes it."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(folder, inputs.network, inputs.dataset, theta)
    return folder


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Try again soon where MLflow is away; `caplog` has what is said of it."""
    monkeypatch.setattr(sender_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE_S", 0.2)
    caplog.set_level(logging.WARNING, logger="orchestrator")
