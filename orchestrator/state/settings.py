"""The settings of a sweep: the space, how it runs, and the values that follow from them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.state.databases import check_apart
from orchestrator.state.implementations import implementation
from orchestrator.state.places import SweepPlaces, check_name
from orchestrator.state.stage import SEARCH
from orchestrator.state.workdir import Workdir
from search_spaces import Space, names
from search_spaces.dimensions import Fixed
from search_spaces.entry import Kind
from trainables.config.arithmetic import Arithmetic
from trainables.config.distillation import DistillationConfig
from trainables.config.experts import ExpertRecipe
from trainables.config.protocol import Protocol
from trainables.config.reading import Reading
from trainables.data import catalog
from trainables.data.catalog import DatasetFacts
from trainables.data.published import find
from trainables.data.source import Source
from trainables.implementation import Implementation
from trainables.networks.depth import check_depth
from trainables.storage.paths import absolute_place, absolute_uri, path_of

__all__ = ["PATIENCE_S", "SweepSettings", "repeat_command"]

PATIENCE_S = 600.0
"""Default of `SweepSettings.patience_s`."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """One sweep: the space with all overrides applied, and how it runs."""

    space: Space
    name: str
    seed: int
    workdir: Workdir
    address: str = "local"
    concurrent: int | None = None
    """Trials that run at once; None: as many as the resources allow."""
    cpus: int | None = None
    """CPU cores of an embedded Ray; None: those that this process was granted."""
    gpus_per_trial: float | str | None = None
    """GPUs of a trial; `auto`: as its measured memory and time allow; None: one where there is a GPU, else none."""
    time_budget_s: float | None = None
    """Seconds, over all drivers, after which the search starts no further trials and pauses the running ones."""
    patience_s: float = PATIENCE_S
    """Seconds without progress, while processes are lost, after which a stage is given up; it can be resumed."""
    memory_budget_bytes: float | None = None
    """Memory that the graph of a trial's inner step may take; None: the trial's share of the device's memory."""
    tracking_uri: str | None = None
    study_uri: str | None = None
    """The database of Optuna's studies; None: SQLite in the workdir."""
    storage_path: str | None = None
    """Path or URI of the trials' checkpoints; None: the sweep's own folder."""
    data: Path | None = None
    preset: str | None = None
    """The method whose rules were applied to the space."""
    retrain_corrupt: bool = False
    quiet: bool = False
    stage: str = SEARCH
    """The stage whose distillations these are: the search, or the finals; see `stages.fresh_seeds`."""

    def __post_init__(self) -> None:
        """Refuse invalid settings before any work.

        Raises:
            UserError: The name is no name of a sweep, a number is out of range, or MLflow and the studies would share
                a database.
            InputError: A path is empty or has a control character.
            ConfigError: A point of the space is no valid setting of a distillation.
        """
        check_name(self.name)
        if not self.address.strip():
            raise UserError("--address is empty; give local, auto, HOST:PORT or ray://HOST:PORT")
        self._complete_paths()
        if self.tracking_uri is not None or self.study_uri is not None:
            check_apart(self.tracking_uri or self.workdir.databases(self.name).mlflow_uri, self.places.study_storage)
        self._check_numbers()
        for point in self.space.points():  # checked now, because a trial would fail only after the experts' training
            DistillationConfig.from_settings(self.space.resolve(point))

    def _complete_paths(self) -> None:
        """Make paths absolute: they are stored, and the sweep may be resumed from another folder.

        Raises:
            InputError: A path is empty or has a control character, or `~` names no home.
        """
        if self.data is not None:
            object.__setattr__(self, "data", path_of(self.data, "--data").absolute())
        for field, option in (("tracking_uri", "--tracking-uri"), ("study_uri", "--study-uri")):
            if (uri := getattr(self, field)) is not None:
                object.__setattr__(self, field, absolute_uri(uri, option))
        if self.storage_path is not None:
            object.__setattr__(self, "storage_path", absolute_place(self.storage_path, "--storage-path"))

    def _check_numbers(self) -> None:
        """Refuse numbers that the command line refuses too: these may come from a Python call."""
        if self.seed < 0:
            raise UserError(f"the seed is a whole number of at least 0, not {self.seed}")
        if self.concurrent is not None and self.concurrent < 1:
            raise UserError(f"concurrent is a whole number of at least 1, not {self.concurrent}")
        if self.cpus is not None and self.cpus < 1:
            raise UserError(f"cpus is a whole number of at least 1, not {self.cpus}")
        if self.cpus is not None and self.address != "local":
            raise UserError(
                f"--cpus is for the embedded Ray of --address local, and the nodes of Ray at {self.address} offer what "
                "they were started with (ray start --num-cpus); leave --cpus out"
            )
        share = self.gpus_per_trial
        if share is not None and share != "auto" and (isinstance(share, str) or not 0 < share <= 1):
            raise UserError(f"gpus_per_trial is auto, or a number above 0 and at most 1, not {share!r}")
        for what in ("time_budget_s", "patience_s", "memory_budget_bytes"):
            amount = getattr(self, what)
            if amount is not None and not amount > 0:
                raise UserError(f"{what} is a number above 0, not {amount}")

    @cached_property
    def fixed(self) -> Mapping[str, Any]:
        """The settings that all trials share, by key."""
        shared, _ = self.space.split(self.space.resolve(self.space.first()))
        return shared

    @property
    def dataset(self) -> Implementation:
        """The implementation that finds the dataset.

        Raises:
            SpaceError: The dataset is unknown.
        """
        return implementation(self.space, Kind.DATASET, self.space.dataset)

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of every worker's process."""
        return Arithmetic.from_settings(self.fixed)

    @property
    def recipe(self) -> ExpertRecipe:
        """How the experts are trained."""
        return ExpertRecipe.from_settings(self.fixed)

    @property
    def final_protocol(self) -> Protocol:
        """How the finals train on a synthetic set."""
        return Protocol.challenge(self.fixed["protocol_epochs"])

    @property
    def full_data_protocol(self) -> Protocol:
        """How the finals train on the full training set."""
        return Protocol.challenge(self.fixed["full_data_epochs"])

    def regime_protocol(self, regime: str) -> Protocol:
        """How the finals train in a label regime."""
        return Protocol.regime(regime, epochs=self.fixed["regime_epochs"], temperature=self.fixed["temperature"])

    @property
    def validation_protocol(self) -> Protocol:
        """How the search's objective trains."""
        return Protocol.challenge(self.fixed["validation_epochs"])

    @cached_property
    def places(self) -> SweepPlaces:
        """The names and paths of the sweep's stage."""
        return SweepPlaces(
            workdir=self.workdir, name=self.name, stage=self.stage, study_uri=self.study_uri,
            storage_path=self.storage_path,
        )  # fmt: skip

    @property
    def resume_command(self) -> str:
        """The command that resumes this sweep."""
        return shlex.join(["python", "-m", "orchestrator.sweep", "--resume", self.name, "--workdir", str(self.workdir)])

    @property
    def pages_command(self) -> str:
        """The command that shows MLflow's pages about this sweep."""
        return shlex.join(["python", "-m", "orchestrator.ui", "--workdir", str(self.workdir), "--sweep", self.name])

    @cached_property
    def source(self) -> Source:
        """The dataset's files; cached, because a search through 100,000 files takes a while.

        Raises:
            DatasetError: The files are missing; says which files to put where.
        """
        return find(self.dataset, self.data, self.reading)

    @property
    def reading(self) -> Reading:
        """How the dataset's files are read."""
        return Reading.from_settings(self.fixed)

    @property
    def facts(self) -> DatasetFacts:
        """The facts of the dataset: from its files if they are given, else from the catalog.

        Raises:
            DatasetError: The name is unknown, or the dataset's files are needed and are missing.
        """
        of_its_files = self.dataset.source is not None or self.dataset.name in catalog.OWN_FACTS
        if of_its_files or self.data is not None:
            return self.source.facts
        return catalog.facts(self.dataset.name).resized(self.reading.image_size)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the dataset's files; nothing if the catalog has its facts and no folder is given.

        Raises:
            DatasetError: The files are missing.
        """
        of_its_files = self.dataset.source is not None or self.dataset.name in catalog.OWN_FACTS
        return self.source.findings.lines if of_its_files or self.data is not None else ()

    def check_dataset(self) -> None:
        """Refuse, before any work, a dataset whose files are missing or that has too few classes.

        Raises:
            DatasetError: Says which files to put where, or how many classes the dataset has.
            ConfigError: The network is too deep for the images.
        """
        self.source.facts.first(self.fixed["classes"])
        self.check_depth()

    def check_depth(self) -> None:
        """Refuse our network if it is too deep for the images; another is asked when it is made.

        Raises:
            DatasetError: As `facts`.
            ConfigError: The network is too deep.
        """
        if implementation(self.space, Kind.NETWORK, self.fixed["network"]).source is None:
            check_depth(self.fixed["net_depth"], self.facts.image_size)


def repeat_command(settings: SweepSettings) -> str:
    """Return the command that repeats this sweep: with its space, preset, seed and the values changed by `--set`.

    A space from a user's own file is written as its name with .py, because the file's path is not recorded.
    """
    space = settings.space.name if settings.space.name in names() else f"{settings.space.name}.py"
    words = ["python", "-m", "orchestrator.sweep", "--space", space, "--seed", str(settings.seed)]
    if settings.preset:
        words += ["--preset", settings.preset]
    for name, dimension in settings.space.parameters.items():
        if isinstance(dimension, Fixed) and dimension.source == "--set":
            words += ["--set", f"{name}={dimension.value}"]
    if settings.data:
        words += ["--data", str(settings.data)]
    return shlex.join(words)
