"""The winner's network as a model of MLflow's: the same logits, loaded and served where no code of ours is."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.models import Model

from orchestrator.tracking.served_model import save_model, standalone
from tests.support.servers import free_port
from trainables.data import whitening
from trainables.data.datasets import ImageDataset, Split
from trainables.networks.convnet import ConvNet

NETWORK = ConvNet(channels=3, image_size=10, classes=4, depth=2, width=8)  # 10 → 5 → 2: a pixel is left out

NAMES = ("$0_to_$10", "two\nlines | 猫", "x" * 200, "caf\udce9")


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    """Pictures whose channels differ in mean and spread, and whose white is 200."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, (60, 120, 201), size=(40, 10, 10, 3), dtype=np.uint8).transpose(0, 3, 1, 2).copy()
    return ImageDataset(
        name="pictures", class_names=NAMES, channels=3, image_size=10, mean=(0.15, 0.3, 0.5),
        std=(0.09, 0.17, 0.29), levels=200, augmentation=(), digest="0123", validation_share=0.1, path=Path(),
        splits={"train": Split(images, np.arange(40) % 4, "")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def theta() -> torch.Tensor:
    """Parameters of which none is what a layer begins with."""
    generator = torch.Generator().manual_seed(0)
    return NETWORK.initial(generator) + 0.1 * torch.randn(NETWORK.parameters, generator=generator)


@pytest.fixture(scope="module")
def folder(dataset: ImageDataset, theta: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(folder, NETWORK, dataset, theta)
    return folder


def intensities(dataset: ImageDataset) -> torch.Tensor:
    return dataset.pixels("train").float() / dataset.levels


def expected(dataset: ImageDataset, theta: torch.Tensor) -> torch.Tensor:
    return NETWORK.logits(theta, dataset.normalized("train"))


def close(actual: Any, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(actual), wanted, rtol=0, atol=1e-5)


def test_it_normalises_by_itself(dataset: ImageDataset, theta: torch.Tensor) -> None:
    close(standalone(NETWORK, dataset, theta)(intensities(dataset)), expected(dataset, theta))


def test_it_whitens_by_itself(dataset: ImageDataset, theta: torch.Tensor) -> None:
    images = dataset.split("train").images
    whitened = ImageDataset(**{**vars(dataset), "whitening": whitening.fit(images, dataset.levels)})
    wanted = expected(whitened, theta)
    assert (wanted - expected(dataset, theta)).abs().max() > 0.1
    close(standalone(NETWORK, whitened, theta)(intensities(whitened)), wanted)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_mlflow_loads_it(folder: Path, dataset: ImageDataset, theta: torch.Tensor, count: int) -> None:
    logits = mlflow.pyfunc.load_model(str(folder)).predict(intensities(dataset)[:count].numpy())
    close(logits, expected(dataset, theta)[:count])


def test_it_says_what_it_takes_and_gives_and_needs(folder: Path) -> None:
    model = Model.load(str(folder))
    assert model.metadata is not None
    assert model.metadata["class_names"] == list(NAMES)
    assert "from 0 to 1" in model.metadata["input"]
    assert [spec.shape for spec in (*model.signature.inputs.inputs, *model.signature.outputs.inputs)] == [
        (-1, 3, 10, 10), (-1, 4),
    ]  # fmt: skip
    versions = [".".join(version.split(".")[:2]) for version in (mlflow.__version__, torch.__version__)]
    requirements = (folder / "requirements.txt").read_text().split()
    assert requirements == [f"mlflow=={versions[0]}.*", f"torch=={versions[1]}.*"]
    with pytest.raises(mlflow.MlflowException, match="schema"):
        mlflow.pyfunc.load_model(str(folder)).predict(np.zeros((1, 1, 10, 10), np.float32))


LOAD = """
import json, sys
for wing in ("orchestrator", "trainables", "search_spaces"):
    sys.modules[wing] = None  # an import of it fails
import mlflow, numpy
images = numpy.array(json.load(sys.stdin), numpy.float32)
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(images).tolist()))
"""


def test_it_loads_without_our_code_and_without_unpickling(
    folder: Path, dataset: ImageDataset, theta: torch.Tensor, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(folder)], input=json.dumps(intensities(dataset).tolist()), text=True,
        capture_output=True, cwd=tmp_path, env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    close(json.loads(done.stdout), expected(dataset, theta))


def test_it_takes_the_place_of_an_older_one_and_of_what_a_killed_driver_left(
    dataset: ImageDataset, theta: torch.Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("model", ".model.partial"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "old").write_text("old")
    save_model(tmp_path / "model", NETWORK, dataset, theta)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not list(tmp_path.rglob("old"))
    close(mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(intensities(dataset).numpy()),
          expected(dataset, theta))  # fmt: skip
    assert capfd.readouterr() == ("", ""), "it is written in the middle of a progress bar"


@pytest.mark.slow
def test_mlflow_serves_it(folder: Path, dataset: ImageDataset, theta: torch.Tensor, tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(folder), "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    # MLflow looks for uvicorn on the path, as it is where a virtual environment is active.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True, env=environment
        )
    try:
        while True:  # the test's own timeout bounds it
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        asked = json.dumps({"inputs": intensities(dataset).tolist()}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", asked, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            close(json.load(answer)["predictions"], expected(dataset, theta))
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
