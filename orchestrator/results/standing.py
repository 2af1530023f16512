"""The standing of a sweep: what it does or how it ended, read from its files while a driver works on it, or after."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.errors import ClusterError
from orchestrator.results.result_json import stored_result
from orchestrator.results.under_way import UnderWay
from orchestrator.state.lock import is_held
from orchestrator.state.settings import SweepSettings

__all__ = ["Standing", "Standings", "read_standing"]


class Standings(StrEnum):
    """What a sweep does, or how it ended."""

    STARTING = "starting"
    """A driver has begun and has written nothing yet."""
    RUNNING = "running"
    STOPPED = "stopped"
    """By hand."""
    FAILED = "failed"
    FINISHED = "finished"
    KILLED = "killed"
    """Its driver ended without a word: killed, or with its machine."""

    @property
    def ended(self) -> bool:
        """Whether no driver works at the sweep."""
        return self not in (Standings.STARTING, Standings.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The standing of a sweep or comparison."""

    settings: SweepSettings
    state: Standings
    elsewhere: bool
    """Whether a driver on another machine may run it, which cannot be known here; then the state is RUNNING."""
    result: Mapping[str, Any] | None
    """The content of result.json, with any status; None: there is none yet."""
    under_way: UnderWay | None
    """What it does, or did when it ended; None if it has finished, or has no result.json."""


def read_standing(settings: SweepSettings) -> Standing:
    """Return the standing of a sweep; of a workdir at a URI that of the last push, unless its driver runs here.

    Raises:
        ClusterError: The URI does not answer, or result.json cannot be read.
    """
    held, workdir = is_held(settings.places), settings.workdir
    try:
        if workdir.uri is None or held:
            result = stored_result(settings)
        else:
            content = workdir.shared_sweep(settings.name).read("result.json")
            result = None if content is None else json.loads(content)
        under_way = UnderWay.from_json(result["under_way"]) if result and "under_way" in result else None
        status = result["status"] if result else None
        elsewhere = workdir.uri is not None and not held and status in (None, Standings.RUNNING)
        state = _state(status, held, elsewhere)
    except OSError as error:
        raise ClusterError(str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{settings.places.shared}/result.json cannot be read ({error})") from error
    return Standing(settings=settings, state=state, elsewhere=elsewhere, result=result, under_way=under_way)


def _state(status: str | None, held: bool, elsewhere: bool) -> Standings:
    """Return the state for a status in result.json.

    Raises:
        ValueError: The status is unknown.
    """
    if status is None:
        return Standings.STARTING if held or elsewhere else Standings.KILLED
    if status == Standings.RUNNING:
        return Standings.RUNNING if held or elsewhere else Standings.KILLED
    return Standings(status)
