"""What the units of work of a sweep are given: prepared dataset, network, augmentation, the experts' store."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from orchestrator.cluster import Resources
from orchestrator.live import progress_bar
from orchestrator.settings import SweepSettings
from trainables.actor import ExpertWork
from trainables.augmentation import Augmentation, parse_families
from trainables.datasets import ImageDataset, load, prepare, whiten, whitened
from trainables.networks import ConvNet
from trainables.shared_file import SharedFile, share
from trainables.storage import SharedFolder
from trainables.trajectories import TrajectoryStore
from trainables.whitening import EPS
from trainables.workbench import TrialWork

__all__ = ["Inputs", "prepare_dataset", "prepare_inputs"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What every stage after the first works on."""

    settings: SweepSettings
    path: Path
    """The prepared dataset's file."""
    file: Path | SharedFile
    """The same for any node."""
    dataset: ImageDataset
    """Its training and validation split; the test split is opened by the finals alone."""
    network: ConvNet
    augmentation: Augmentation
    """DSA of experts and distillation."""
    store: TrajectoryStore

    @property
    def experts_place(self) -> str:
        """Where the experts lie that all nodes share: a path or URI."""
        return self.store.shared.place("").rstrip("/")

    @property
    def evaluation_augmentation(self) -> Augmentation:
        """DSA of what is trained to be tested: the evaluator's transforms do not align corners. METHOD §3."""
        return Augmentation(families=self.augmentation.families, align_corners=False)

    def expert_work(self, resources: Resources) -> ExpertWork:
        """What an expert actor is asked to do."""
        return ExpertWork(
            dataset=self.file,
            store=self.settings.workdir.experts,
            identity=self.store.identity,
            network=self.network,
            recipe=self.settings.recipe,
            augmentation=self.augmentation,
            seed=self.settings.fixed["expert_seed"],
            epochs=self.settings.space.horizon_epochs,
            device=resources.device,
        )

    def trial_work(self, resources: Resources, *, compiled: bool) -> TrialWork:
        """What all trials share."""
        fixed = self.settings.fixed
        return TrialWork(
            dataset=self.file,
            store=self.settings.workdir.experts,
            identity=self.store.identity,
            network=self.network,
            augmentation=self.augmentation,
            checkpoints=self.settings.checkpoints,
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
    """Prepare the dataset (decoded once, then cached) and address the experts' store.

    Raises:
        DatasetError: The dataset is not there or not whole.
        ConfigError: Network or augmentation cannot work with it.
    """
    fixed = settings.fixed
    path = prepare_dataset(
        settings.space.dataset,
        settings.workdir.datasets,
        settings.data,
        fixed["validation_share"],
        console,
        classes=fixed["classes"],
        zca=fixed["zca"],
    )
    dataset = load(path)
    network = ConvNet(
        channels=dataset.channels,
        image_size=dataset.image_size,
        classes=dataset.classes,
        depth=fixed["net_depth"],
        width=fixed["net_width"],
    )
    augmentation = Augmentation(families=parse_families(fixed["augmentation"], dataset.augmentation))
    # The digest tells whitened images from plain ones; the word is for who reads the manifest.
    normalisation = {"zca": EPS} if dataset.whitening else {}
    identity = {
        "dataset": {"name": dataset.name, "digest": dataset.digest, **normalisation},
        "network": asdict(network),
        "recipe": asdict(settings.recipe),
        "augmentation": asdict(augmentation),
        "seed": fixed["expert_seed"],
    }
    store = TrajectoryStore(settings.workdir.experts, identity, network)
    return Inputs(
        settings=settings,
        path=path,
        file=_shared_dataset(path, settings.workdir.shared / "datasets"),
        dataset=dataset,
        network=network,
        augmentation=augmentation,
        store=store,
    )


def _shared_dataset(path: Path, folder: SharedFolder) -> Path | SharedFile:
    """Return what gives any node the file of a prepared dataset, published at a URI; a whitening with its images."""
    if folder.uri is None:
        return path.absolute()
    images = path.with_name(f"{path.name.partition('.')[0]}.arrow")
    return share(path, folder, beside=None if images == path else share(images, folder))


def prepare_dataset(
    name: str,
    cache: Path,
    data: Path | None,
    validation_share: float,
    console: Console,
    *,
    classes: int = 0,
    zca: bool = False,
) -> Path:
    """Return a dataset's file for `load`: decoded under a progress bar, and whitened, where it is not there yet."""
    with ExitStack() as stack:
        bars: list[Callable[[int], None]] = []

        def progress(done: int, total: int) -> None:
            if not bars:  # only now is it known that there is something to decode, and how much
                bars.append(stack.enter_context(progress_bar(console, f"Decoding {name}", total)))
            bars[0](done)

        path = prepare(
            name, cache=cache, data=data, validation_share=validation_share, classes=classes, progress=progress
        )
    if not zca:
        return path
    if not whitened(path).exists():
        console.print(f"Whitening {name}, once: half a minute at 32 × 32 pixels, a quarter of an hour at 64 × 64")
    return whiten(path)
