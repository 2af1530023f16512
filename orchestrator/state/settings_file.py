"""settings.json: writes a sweep's settings, reads them, and compares them with those of a new command."""

import json
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.state.places import check_name
from orchestrator.state.settings import PATIENCE_S, SweepSettings
from orchestrator.state.workdir import Workdir
from search_spaces.record import from_record, to_record
from trainables.storage.atomic import write_json

__all__ = ["check_same_settings", "read_settings", "write_settings"]

SETTINGS_VERSION = 3
_EXECUTION_KEYS = ("address", "concurrent", "cpus", "gpus_per_trial", "time_budget_s", "patience_s")
"""Settings that may change when a sweep is resumed: they change how it runs, and not its result."""
_WRITTEN = (
    "seed", "address", "concurrent", "gpus_per_trial", "time_budget_s", "patience_s", "memory_budget_bytes",
    "tracking_uri", "study_uri", "storage_path", "preset", "cpus",
)  # fmt: skip


def write_settings(settings: SweepSettings) -> None:
    """Create the sweep's folder and write its settings."""
    (settings.places.folder / "figures").mkdir(parents=True, exist_ok=True)
    write_json(settings.places.settings_file, _record(settings))


def read_settings(workdir: Workdir, name: str, **changes: Any) -> SweepSettings:
    """Return the settings of a sweep of the workdir.

    Args:
        workdir: The workdir.
        name: The sweep's name.
        changes: Settings that settings.json does not hold, or that replace those in it.

    Raises:
        UserError: The name cannot be a sweep's, the workdir has no such sweep, or its settings cannot be read.
    """
    check_name(name)
    folder = workdir.shared_sweep(name)
    file, content = folder.place("settings.json"), folder.read("settings.json")
    if content is None:
        known = workdir.sweeps()
        existing = f"there are {', '.join(known)}" if known else "there is none"
        raise UserError(f"no sweep named {name!r} in {workdir}; {existing}: check the name and --workdir")
    try:
        record = json.loads(content)
        if (version := record["version"]) != SETTINGS_VERSION:
            raise UserError(f"{file} has format version {version}, this program reads {SETTINGS_VERSION}; start anew")
        record.setdefault("patience_s", PATIENCE_S)  # files of release 0.1 lack it
        record.setdefault("cpus", None)  # sweeps of earlier versions lack it
        if changes.get("address", "local") != "local":
            record["cpus"] = None  # those of this machine
        written = {key: record[key] for key in _WRITTEN}
        written["data"] = None if record["data"] is None else Path(record["data"])
        space = from_record(record["space_record"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} holds no valid settings ({error}); start anew under another name") from error
    return SweepSettings(space=space, name=name, workdir=workdir, **{**written, **changes})


def check_same_settings(settings: SweepSettings) -> None:
    """Refuse to resume a sweep of this name that has other settings.

    Raises:
        UserError: The settings differ; names the keys.
    """
    workdir, name = settings.workdir, settings.name
    if workdir.shared_sweep(name).read("settings.json") is None:
        return
    before = _without_wording(_record(read_settings(workdir, name)))
    now = _without_wording(json.loads(json.dumps(_record(settings))))
    different = [key for key in now if key not in (*_EXECUTION_KEYS, "data") and now[key] != before.get(key)]
    if "space_record" in different:
        parameters, stored = now["space_record"]["parameters"], before["space_record"]["parameters"]
        different += [key for key in parameters if parameters[key] != stored.get(key)]
        different = [key for key in different if key not in ("space_record", "fixed")] or ["space"]
    if different:
        raise UserError(
            f"a sweep named {name!r} exists in {settings.places.shared.rpartition('/')[0]} with other settings "
            f"({', '.join(different)} differ); choose another --name, or resume that sweep: {settings.resume_command}"
        )


def _without_wording(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without the space's title, reference and sources, whose wording another release may change."""
    space = record["space_record"]
    parameters = {
        name: {key: value for key, value in dimension.items() if key != "source"}
        for name, dimension in space["parameters"].items()
    }
    return {**record, "space_record": {**space, "title": "", "reference": "", "parameters": parameters}}


def _record(settings: SweepSettings) -> dict[str, Any]:
    return {
        "version": SETTINGS_VERSION,
        "sweep": settings.name,
        "space": settings.space.name,
        "dataset": settings.space.dataset,
        **{key: getattr(settings, key) for key in _WRITTEN},
        "data": None if settings.data is None else str(settings.data),
        "fixed": dict(settings.fixed),
        "space_record": to_record(settings.space),
    }
