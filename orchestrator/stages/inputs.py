"""The inputs of a sweep's units of work: prepared dataset, network, augmentation and the experts' store."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.cluster.resources import Resources
from orchestrator.errors import UserError
from orchestrator.state.implementations import implementation, implementations
from orchestrator.state.progress import Progress
from orchestrator.state.settings import SweepSettings
from orchestrator.terminal.progress_bar import progress_bar
from search_spaces.entry import Kind
from trainables.config.reading import AS_IT_IS, Reading
from trainables.data.augmentation import Augmentation, parse_families
from trainables.data.datasets import ImageDataset, check_whitening, load, prepare_source, whiten, whitened
from trainables.data.duplicates import duplicates_of
from trainables.data.source import Findings, Source
from trainables.experts.identity import ExpertIdentity
from trainables.experts.store import TrajectoryStore
from trainables.networks.network import MakeNetwork, Network
from trainables.storage.shared_file import SharedFile, share
from trainables.storage.shared_folder import SharedFolder
from trainables.workers.expert import ExpertWork
from trainables.workers.workbench import TrialWork

__all__ = ["Inputs", "check_same_dataset", "prepare_dataset", "prepare_inputs"]

_RECIPE = (
    "expert_", "sam_", "gsam_", "net", "horizon_", "augmentation", "zca", "classes", "validation_share", "precision",
    "deterministic",
)  # fmt: skip
"""Prefixes of the names of the settings that determine an expert."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of every stage after the preparation of the dataset."""

    settings: SweepSettings
    path: Path
    """The prepared dataset's file."""
    file: Path | SharedFile
    """The same file in a form that any node can open."""
    dataset: ImageDataset
    """Its training and validation split; only the finals open the test split."""
    findings: Findings
    """What was seen in the dataset's files, and what is wrong with its images."""
    store: TrajectoryStore
    """The experts, trained or not."""

    @property
    def network(self) -> Network:
        """The network of experts, distillation and evaluation."""
        return self.store.network

    @property
    def augmentation(self) -> Augmentation:
        """DSA of experts and distillation."""
        return self.store.identity.augmentation

    @property
    def experts_place(self) -> str:
        """The folder of the experts that all nodes share: a path or URI."""
        return self.store.shared.place("").rstrip("/")

    @property
    def experts_params(self) -> dict[str, Any]:
        """The settings that determine the experts, as MLflow logs them."""
        params = {key: value for key, value in self.settings.fixed.items() if key.startswith(_RECIPE)}
        dataset = {"dataset": self.dataset.name, "dataset_digest": self.dataset.digest}
        return {**params, **dataset, "store": self.store.address}

    @property
    def evaluation_augmentation(self) -> Augmentation:
        """DSA of the networks that evaluate a set."""
        return self.augmentation.for_evaluation()

    def expert_work(self, resources: Resources) -> ExpertWork:
        """Return the work of the expert actors."""
        return ExpertWork(
            dataset=self.file,
            store=self.store,
            epochs=self.settings.space.horizon_epochs,
            device=resources.device,
            kept=self.settings.workdir.scores,
        )

    def trial_work(self, resources: Resources, *, compiled: bool) -> TrialWork:
        """Return the part of the work that all trials share."""
        fixed = self.settings.fixed
        return TrialWork(
            dataset=self.file,
            store=self.store,
            methods=implementations(self.settings.space, Kind.METHOD),
            checkpoints=self.settings.places.checkpoints,
            settings=dict(fixed),
            experts=fixed["expert_count"],
            epochs=self.settings.space.horizon_epochs,
            protocol=self.settings.validation_protocol,
            validation_networks=fixed["validation_networks"],
            validation_every_iterations=fixed["validation_every_iterations"],
            seed=self.settings.seed,
            device=resources.device,
            compiled=compiled,
            memory_budget_bytes=self.settings.memory_budget_bytes,
            device_share=resources.gpus_per_trial or 1 / resources.workers(self.settings.concurrent),
        )


def prepare_inputs(settings: SweepSettings, console: Console) -> Inputs:
    """Prepare the dataset (decoded once, then cached) and compute the address of the experts' store.

    Raises:
        DatasetError: The dataset is missing or incomplete.
        ConfigError: The network or the augmentation does not support the dataset.
    """
    fixed = settings.fixed
    _load_user_code(settings)
    console.print(f"Reading the dataset {settings.space.dataset}", markup=False)
    for line in settings.source.findings.lines:
        console.print(f"Note: {line}", markup=False, soft_wrap=True)
    network = _network(settings)  # first, so that one that does not suit the images is refused before they are decoded
    path = prepare_dataset(
        settings.source,
        settings.workdir.datasets,
        fixed["validation_share"],
        console,
        reading=settings.reading,
        classes=fixed["classes"],
        zca=fixed["zca"],
    )
    dataset = load(path)
    left_out = f"Damaged images that were left out: {dataset.damage}" if dataset.damage else ""
    if leak := duplicates_of(path).warning:
        console.print(f"Warning: {leak}", soft_wrap=True)
    augmentation = Augmentation(families=parse_families(fixed["augmentation"], dataset.augmentation))
    identity = ExpertIdentity.of(
        dataset,
        network=network,
        recipe=settings.recipe,
        augmentation=augmentation,
        seed=fixed["expert_seed"],
        arithmetic=settings.arithmetic,
    )
    return Inputs(
        settings=settings,
        path=path,
        file=_shared_dataset(path, settings.workdir.shared / "datasets"),
        dataset=dataset,
        findings=settings.source.findings.completed(note=left_out, warning=leak),
        store=TrajectoryStore(settings.workdir.experts, identity),
    )


def _network(settings: SweepSettings) -> Network:
    """Return the network for the dataset's images.

    Raises:
        ConfigError: The network does not support them.
    """
    fixed, facts = settings.fixed, settings.source.facts.first(settings.fixed["classes"])
    make_network: MakeNetwork = implementation(settings.space, Kind.NETWORK, fixed["network"]).load()
    return make_network(
        channels=facts.channels,
        image_size=facts.image_size,
        classes=facts.classes,
        depth=fixed["net_depth"],
        width=fixed["net_width"],
    )


def check_same_dataset(inputs: Inputs, progress: Progress) -> None:
    """Record the digest of the dataset in a new sweep, and refuse other images in a sweep that has begun.

    Raises:
        UserError: The images are not those with which the sweep was begun.
    """
    settings, digest = inputs.settings, inputs.dataset.digest
    if progress.dataset_digest not in (None, digest):
        raise UserError(
            f"the images in {settings.data or settings.space.dataset} are not those with which the sweep "
            f"{settings.name!r} was begun (SHA-256 {digest[:12]}…, not {str(progress.dataset_digest)[:12]}…); give "
            "--data the folder that holds those, or start anew under another --name"
        )
    progress.record_dataset(digest)


def _shared_dataset(path: Path, folder: SharedFolder) -> Path | SharedFile:
    """Return a prepared dataset's file in a form that any node can open; in a workdir at a URI the file is uploaded.

    A whitened dataset's file is uploaded together with the file of its images.
    """
    if folder.uri is None:
        return path.absolute()
    images = path.with_name(f"{path.name.partition('.')[0]}.arrow")
    return share(path, folder, beside=None if images == path else share(images, folder))


def _load_user_code(settings: SweepSettings) -> None:
    """Load every implementation from a user's file, so that an error appears here and not in a worker.

    Raises:
        ConfigError: An implementation cannot be loaded.
    """
    for kind in Kind:
        for candidate in implementations(settings.space, kind):
            if candidate.source is not None:
                candidate.load()


def prepare_dataset(
    source: Source,
    cache: Path,
    validation_share: float,
    console: Console,
    *,
    reading: Reading = AS_IT_IS,
    classes: int = 0,
    zca: bool = False,
) -> Path:
    """Return a dataset's file for `load`; a file that the cache lacks is decoded, with a progress bar, and whitened.

    Raises:
        DatasetError: As `datasets.prepare`, or whitening needs more memory than there is.
    """
    name = source.facts.name
    if zca:
        check_whitening(source, cache=cache, validation_share=validation_share, classes=classes, reading=reading)
    with ExitStack() as stack:
        bars: list[Callable[[int], None]] = []

        def progress(done: int, total: int) -> None:
            if not bars:  # the first call, which only happens if images are to be decoded
                bars.append(stack.enter_context(progress_bar(console, f"Decoding {name}", total)))
            bars[0](done)

        path = prepare_source(
            source,
            cache=cache,
            validation_share=validation_share,
            classes=classes,
            reading=reading,
            progress=progress,
        )
    if damage := load(path, ()).damage:
        left_out = "1 damaged image was" if damage.count == 1 else f"{damage.count:,} damaged images were"
        console.print(f"{left_out} left out: {damage}", markup=False)
    if not zca:
        return path
    if not whitened(path).exists():
        console.print(f"Whitening {name}, only once: half a minute at 32 × 32 pixels, a quarter of an hour at 64 × 64")
    return whiten(path)
