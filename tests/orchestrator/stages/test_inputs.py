"""What the units of work are given: the same view of the dataset everywhere, and experts addressed by it."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cluster.resources import Resources
from orchestrator.errors import UserError
from orchestrator.results.result_json import dataset_entry, dataset_warnings
from orchestrator.stages.inputs import Inputs, check_same_dataset, prepare_inputs
from orchestrator.state.progress import Progress
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.console import make_console
from search_spaces import load
from tests.support.builders import sweep_settings
from tests.support.pictures import image_folder
from trainables.data import datasets
from trainables.errors import InputError
from trainables.storage.shared_file import local_path

VIEWS: dict[str, dict[str, Any]] = {
    "whole": {}, "classes": {"classes": 3}, "zca": {"zca": True}, "both": {"classes": 3, "zca": True},
    "resized": {"image_size": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inputs]:
    workdir = Workdir(tmp_path_factory.mktemp("inputs"))
    return {
        name: prepare_inputs(
            sweep_settings(space=load("digits").override(values), name=name, workdir=workdir),
            make_console(quiet=True),
        )
        for name, values in VIEWS.items()
    }


@pytest.mark.parametrize("name", VIEWS)
def test_workers_load_the_view_that_was_asked_for(inputs: dict[str, Inputs], name: str) -> None:
    values, resources = VIEWS[name], Resources(cpus=1, gpus=0, gpus_per_trial=0)
    made = inputs[name]
    for path in (made.expert_work(resources).dataset, made.trial_work(resources, compiled=False).dataset, made.path):
        dataset = datasets.load(local_path(path), datasets.SPLITS)
        assert dataset.digest == made.dataset.digest
        assert dataset.classes == made.network.classes == values.get("classes", 10)
        assert (dataset.whitening is not None) == values.get("zca", False)


def test_images_network_and_experts_follow_the_size(inputs: dict[str, Inputs]) -> None:
    resized = inputs["resized"]
    assert resized.dataset.image_size == resized.network.image_size == 16
    assert resized.settings.source.facts.image_size == 16


def test_damaged_images_that_are_left_out_are_told_every_time(tmp_path: Path) -> None:
    image_folder(tmp_path / "data")
    (tmp_path / "data" / "train" / "ant" / "2.png").write_bytes(b"no image")
    space = replace(load("digits"), dataset="folder").override({"damaged": "skip"})
    settings = sweep_settings(space=space, workdir=Workdir(tmp_path / "workdir"), data=tmp_path / "data")
    for _ in range(2):
        printed = io.StringIO()
        made = prepare_inputs(settings, Console(file=printed, width=1000))
        assert "1 damaged image was left out: " in printed.getvalue()
        assert "ant/2.png (its bytes are no known image format)" in printed.getvalue()
    assert len(made.dataset.split("train")) + len(made.dataset.split("validation")) == 11


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 8, "net_depth": 4}, "use net_depth ≤ 3, or image_size ≥ 16"),
        (
            {"image_size": 4000, "zca": True},
            r"whitening images of 16,000,000 values needs [\d,]+\.\d GiB",
        ),
        ({"image_size": 500_000}, "preparing 1,797 images of 500000 × 500000 pixels needs"),
    ],
    ids=["network", "whitening", "disk"],
)
def test_what_cannot_be_is_refused_before_anything_is_decoded(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    settings = sweep_settings(space=load("digits").override(values), workdir=Workdir(tmp_path / "workdir"))
    with pytest.raises(InputError, match=message):
        prepare_inputs(settings, make_console(quiet=True))
    assert not list(tmp_path.rglob("*.arrow"))


def test_every_view_has_experts_of_its_own(inputs: dict[str, Inputs]) -> None:
    assert len({made.store.address for made in inputs.values()}) == len(VIEWS)


def test_the_whole_datasets_experts_are_addressed_as_before_there_were_views(inputs: dict[str, Inputs]) -> None:
    assert inputs["whole"].store.identity.record()["dataset"] == {
        "name": "digits",
        "digest": "d75dbd7b80353ca929cc8998d36298a394627e1eed06e6f335aa50931e59ff9d",
    }


def test_a_manifest_says_in_words_that_images_are_whitened(inputs: dict[str, Inputs]) -> None:
    assert {name: made.store.identity.record()["dataset"].get("zca") for name, made in inputs.items()} == {
        "whole": None, "classes": None, "zca": 0.1, "both": 0.1, "resized": None
    }  # fmt: skip


def test_what_was_seen_in_the_files_is_printed(tmp_path: Path) -> None:
    image_folder(tmp_path / "data")
    (tmp_path / "data" / "test" / "cow").rename(tmp_path / "data" / "test" / ".cow")
    printed = io.StringIO()
    space = replace(load("digits"), dataset="own")
    prepare_inputs(
        sweep_settings(space=space, name="own", workdir=Workdir(tmp_path / "runs"), data=tmp_path / "data"),
        Console(file=printed, width=60),
    )
    assert printed.getvalue().splitlines()[:3] == [
        "Reading the dataset own",
        "Note: class 'cow' has no test images: macro-F1 and macro-recall leave it out",
        "Note: Files or folders that were left out: 1 hidden",
    ]


def test_what_is_wrong_with_the_images_is_printed_and_kept_for_the_report(tmp_path: Path) -> None:
    image_folder(tmp_path / "data")
    shutil.copy(tmp_path / "data" / "train" / "cow" / "2.png", tmp_path / "data" / "test" / "cow" / "copy.png")
    (tmp_path / "data" / "test" / "ant" / "0.png").write_bytes(b"no image")
    printed = io.StringIO()
    space = replace(load("digits"), dataset="own").override({"damaged": "skip"})
    made = prepare_inputs(
        sweep_settings(space=space, name="own", workdir=Workdir(tmp_path / "runs"), data=tmp_path / "data"),
        Console(file=printed, width=60),
    )
    leak = (
        "1 of 6 test images are also training images, pixel by pixel, so that accuracies on the test split are too "
        "high; remove them from one of the two"
    )
    assert f"Warning: {leak}" in printed.getvalue().splitlines()
    (damaged,) = made.findings.notes
    assert damaged.startswith("Damaged images that were left out: ") and "0.png (" in damaged
    assert dataset_warnings({"dataset": json.loads(json.dumps(dataset_entry(made.findings)))}) == (leak,)


def test_a_sweep_is_gone_on_with_on_its_own_images_alone(inputs: dict[str, Inputs], tmp_path: Path) -> None:
    """Wherever their files are now; a sweep of an earlier version, which recorded none, records them now."""
    check_same_dataset(inputs["whole"], Progress(tmp_path))
    for _ in range(2):
        check_same_dataset(inputs["whole"], Progress(tmp_path))
    with pytest.raises(
        UserError, match=r"not those with which the sweep 'classes' was begun \(SHA-256 \w{12}….*--data"
    ):
        check_same_dataset(inputs["classes"], Progress(tmp_path))
    assert Progress(tmp_path).dataset_digest == inputs["whole"].dataset.digest
