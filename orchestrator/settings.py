"""What a sweep was asked to do, and every name and path of a sweep; those that sweeps share are `workdir`'s."""

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator.errors import UserError
from orchestrator.workdir import Workdir
from search_spaces import Space
from search_spaces.record import from_record, to_record
from trainables.config import DistillationConfig, ExpertRecipe, Protocol
from trainables.files import write_json
from trainables.sources import find

__all__ = ["FINALS", "SEARCH", "SweepSettings", "Workdir"]

SEARCH, FINALS = "trial", "final"
"""What the distillations of a sweep's stages are called, before their number."""
SETTINGS_VERSION = 3
_HOW_IT_RUNS = ("address", "concurrent", "gpus_per_trial", "time_budget_s")
"""Settings that may be others when a sweep is gone on with: they say how it runs, not what it finds."""
_WRITTEN = (
    "seed", "address", "concurrent", "gpus_per_trial", "time_budget_s", "memory_budget_bytes", "tracking_uri",
    "study_uri", "storage_path", "preset",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """One sweep: the space with all overrides applied, and how it runs."""

    space: Space
    name: str
    seed: int
    workdir: Workdir
    address: str = "local"
    concurrent: int | None = None
    """Trials at once; None: as many as the resources allow."""
    gpus_per_trial: float | str | None = None
    """GPUs of a trial; `auto`: as its measured memory allows; None: one where there is a GPU, else none."""
    time_budget_s: float | None = None
    """Seconds after which the search starts no more and stops what runs."""
    memory_budget_bytes: float | None = None
    """Memory that the graph of a trial's inner step may take; None: its share of what the device has free."""
    tracking_uri: str | None = None
    study_uri: str | None = None
    """The database of Optuna's studies; None: SQLite in the workdir."""
    storage_path: str | None = None
    """Where trials' checkpoints go; None: the sweep's own folder."""
    data: Path | None = None
    preset: str | None = None
    """The method whose rules were applied to the space."""
    retrain_corrupt: bool = False
    quiet: bool = False
    stage: str = SEARCH
    """Whose distillations these are: the search's, or the finals'; see `repeats`."""

    def __post_init__(self) -> None:
        """Refuse a name that is no folder name."""
        if not self.name or self.name != Path(self.name).name or self.name.startswith("."):
            raise UserError(f"a sweep's name is a plain folder name, not {self.name!r}; change --name")
        for point in self.space.points():  # now, and not in a trial, after the experts have been trained
            DistillationConfig.from_settings(self.space.resolve(point))

    @cached_property
    def fixed(self) -> Mapping[str, Any]:
        """The values that all trials share, by key."""
        return {key: dimension.value for key, dimension in self.space.fixed.items()}

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

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return self.workdir.sweep(self.name)

    @property
    def place(self) -> str:
        """Where the sweep's folder is, as people write it."""
        return self.workdir.shared_sweep(self.name).uri or str(self.folder)

    @property
    def study_storage(self) -> str:
        """The database of the study, as Optuna takes it."""
        database = self.workdir.databases(self.name).optuna_database
        return self.study_uri or f"sqlite:///{database.absolute()}"

    @property
    def tune_folder(self) -> str:
        """Where Tune keeps experiments: a path or URI; no node but the driver's needs it."""
        return self.storage_path or str(self.folder.absolute())

    @property
    def study_name(self) -> str:
        """The study's name in its database; no sweep's name has a slash."""
        return self.name if self.stage == SEARCH else f"{self.name}/{self.stage}"

    @property
    def tune_name(self) -> str:
        """The name of this sweep's folder in there."""
        name = self.name if self.storage_path else "tune"
        return name if self.stage == SEARCH else f"{name}/{self.stage}"

    @property
    def checkpoints(self) -> str:
        """Where the trials' checkpoints lie: a path or URI that every node reaches."""
        below = "checkpoints" if self.stage == SEARCH else f"checkpoints/{self.stage}"
        if self.storage_path is None:
            return self.workdir.shared_sweep(self.name).place(below)
        root = self.storage_path if "://" in self.storage_path else str(Path(self.storage_path).absolute())
        return f"{root.rstrip('/')}/{self.name}/{below}"

    @property
    def resume_command(self) -> str:
        """What a person types to go on with this sweep."""
        return f"python -m orchestrator.sweep --resume {self.name} --workdir {shlex.quote(str(self.workdir))}"

    @property
    def _file(self) -> Path:
        return self.folder / "settings.json"

    @classmethod
    def stored(cls, workdir: Workdir, name: str, **how_it_runs: Any) -> "SweepSettings":
        """Return what a sweep of the workdir was asked to do.

        Args:
            workdir: Where it is.
            name: Its name.
            how_it_runs: Settings that are not written down, or are to be others from now on.

        Raises:
            UserError: There is no such sweep, or its settings cannot be read.
        """
        folder = workdir.shared_sweep(name)
        file, content = folder.place("settings.json"), folder.read("settings.json")
        if content is None:
            known = workdir.sweeps()
            there = f"there are {', '.join(known)}" if known else "there is none"
            raise UserError(f"no sweep named {name!r} in {workdir}; {there}: check --resume and --workdir")
        try:
            record = json.loads(content)
            if (version := record["version"]) != SETTINGS_VERSION:
                raise UserError(
                    f"{file} has format version {version}, this program reads {SETTINGS_VERSION}; start anew"
                )
            written = {key: record[key] for key in _WRITTEN}
            data = None if record["data"] is None else Path(record["data"])
            space = from_record(record["space_record"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} is not what a sweep was asked to do ({error}); start anew under another name"
            ) from error
        return cls(space=space, name=name, workdir=workdir, data=data, **{**written, **how_it_runs})

    def stored_result(self) -> dict[str, Any] | None:
        """Return what result.json holds, of whatever status; None if there is none."""
        file = self.folder / "result.json"
        result: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        return result

    def check_same(self) -> None:
        """Refuse to go on with a sweep of this name that was asked to do something else.

        Raises:
            UserError: Says what differs.
        """
        if self.workdir.shared_sweep(self.name).read("settings.json") is None:
            return
        before = SweepSettings.stored(self.workdir, self.name)._record()
        own = json.loads(json.dumps(self._record()))
        different = [key for key in own if key not in (*_HOW_IT_RUNS, "data") and own[key] != before.get(key)]
        if "space_record" in different:
            parts, others = own["space_record"], before["space_record"]
            different += [
                key for key in parts["parameters"] if parts["parameters"][key] != others["parameters"].get(key)
            ]
            different = [key for key in different if key not in ("space_record", "fixed")] or ["space"]
        if different:
            raise UserError(
                f"a sweep named {self.name!r} exists in {self.place.rpartition('/')[0]} and was asked something else "
                f"({', '.join(different)} differ); choose another --name, or go on with it: {self.resume_command}"
            )

    def check_dataset(self) -> None:
        """Refuse a dataset whose files are not there, or that has not the classes asked for, before anything starts.

        Raises:
            DatasetError: Says what to put where.
        """
        find(self.space.dataset, self.data).facts.first(self.fixed["classes"])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the sweep's folder to oneself, by a lock that dies with its holder; leave no trace of one not begun.

        Raises:
            UserError: Another process works on this sweep.
        """
        made = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process works on the sweep {self.name!r} in {self.folder.parent}; wait for it, stop it, or "
                "choose another --name"
            ) from None
        try:
            yield
        finally:
            if not self._file.exists():
                shutil.rmtree(self.folder)
                for place in made[1:]:
                    if not any(place.iterdir()):
                        place.rmdir()
            lock.release()

    def write(self) -> None:
        """Create the sweep's folder and write down what it was asked to do."""
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        write_json(self._file, self._record())

    def _record(self) -> dict[str, Any]:
        return {
            "version": SETTINGS_VERSION,
            "sweep": self.name,
            "space": self.space.name,
            "dataset": self.space.dataset,
            **{key: getattr(self, key) for key in _WRITTEN},
            "data": None if self.data is None else str(self.data),
            "fixed": dict(self.fixed),
            "space_record": to_record(self.space),
        }
