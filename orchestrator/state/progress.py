"""A sweep's progress besides its experts and its study, which a resumed sweep reads.

    sweeps/NAME/progress.jsonl      a line of JSON for each completed step, the format's version first

A line is appended and forced to disk as soon as its step is complete, so that the cost of a line does not grow with
the file. An incomplete last line, which an interrupted driver leaves, is ignored and overwritten by the next line.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.errors import UserError
from orchestrator.state.gpu_figures import GpuFigures
from trainables.evaluation.metrics import Metrics

__all__ = ["Progress"]

FORMAT_VERSION = 4
"""The version of this file and of the checkpoints beside it, which a resumed sweep reads too."""
_OLD_FILE = "progress.json"
"""The file that versions up to 3 wrote."""


class Progress:
    """What the sweep was begun with, the measured finals, and the stages' seconds. One driver at a time writes it.

    Args:
        folder: The sweep's folder; progress.jsonl in it is read if it exists.

    Raises:
        UserError: The file has another format version, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        """Read progress.jsonl, if the folder has it."""
        self._path = folder / "progress.jsonl"
        self._whole_bytes = 0
        """Offset of the end of the last complete line."""
        self._identity: str | None = None
        self._dataset_digest: str | None = None
        self._compilation: tuple[bool, str] | None = None
        self._gpus: dict[str, GpuFigures] = {}
        self._finals: dict[tuple[str, str, int], Metrics] = {}
        self._repeated: list[Any] = []
        self._seconds: dict[str, float] = {}
        self._since = time.monotonic()
        if self._path.exists():
            self._read()
        elif (folder / _OLD_FILE).exists():
            raise UserError(
                f"{folder / _OLD_FILE} is of a format version before {FORMAT_VERSION}, which this program reads; start "
                "anew under another name"
            )

    @property
    def has_identity(self) -> bool:
        """Whether the sweep's identity is recorded: not in a new sweep, nor in one of an earlier version."""
        return self._identity is not None

    @property
    def dataset_digest(self) -> str | None:
        """SHA-256 of the prepared dataset; None: a new sweep, or one that was begun before it was recorded."""
        return self._dataset_digest

    @property
    def compilation(self) -> tuple[bool, str] | None:
        """Whether the trials compile their inner steps, and why; None: not decided yet."""
        return self._compilation

    @property
    def gpus(self) -> Mapping[str, GpuFigures]:
        """What was measured of the trials, by Ray's name of the type of GPU."""
        return MappingProxyType(self._gpus)

    @property
    def finals(self) -> Mapping[tuple[str, str, int], Metrics]:
        """Metrics on the test split, by protocol, set and network."""
        return MappingProxyType(self._finals)

    def identity(self) -> str:
        """Return what tells this sweep from others of its name; it is drawn and recorded at the first call."""
        if self._identity is None:
            self._identity = uuid.uuid4().hex
            self._append({"identity": self._identity})
        return self._identity

    def record_dataset(self, digest: str) -> None:
        """Record the SHA-256 of the prepared dataset; once recorded, it stays."""
        if self._dataset_digest is None:
            self._dataset_digest = digest
            self._append({"dataset_digest": digest})

    def decide_compilation(self, decision: tuple[bool, str]) -> None:
        """Record whether trials compile, and why; once recorded, a decision is final."""
        if self._compilation is None:
            self._compilation = decision
            self._append({"compilation": decision})

    def record_gpu(self, kind: str, figures: GpuFigures) -> None:
        """Record what was measured of the trials on a type of GPU; it decides how many share one.

        Args:
            kind: Ray's name of the type; empty: Ray does not know it.
            figures: The measured figures.
        """
        self._gpus[kind] = figures
        self._append({"gpu_type": kind, "figures": figures.to_json()})

    def add_final(self, job: tuple[str, str, int], metrics: Metrics) -> None:
        """Record a network's metrics on the test split.

        Args:
            job: Protocol, set and network.
            metrics: The network's metrics.
        """
        self._finals[job] = metrics
        protocol, name, network = job
        self._append({"protocol": protocol, "set": name, "network": network, "confusion": metrics.confusion})

    def forget_finals(self, prefix: str) -> None:
        """Drop the metrics of the sets whose names begin with `prefix`, because these sets may change."""
        if any(name.startswith(prefix) for _, name, _ in self._finals):
            self._append({"forgotten": prefix})
            self._forget(prefix)

    def number_repeats(self, variants: Mapping[str, Any]) -> int:
        """Return the number of the finals' distillations of these variants, from 1 on; new ones are recorded.

        A search that continues after its finals can find another winner, which is then distilled under a new number.

        Args:
            variants: Settings that JSON can represent, by the variant's name.
        """
        recorded = json.loads(json.dumps(variants))
        if recorded not in self._repeated:
            self._append({"repeated": recorded})
            self._repeated.append(recorded)
        return self._repeated.index(recorded) + 1

    def spend(self, stage: str) -> None:
        """Add the time since the last call, or since the start, to a stage."""
        now = time.monotonic()
        spent, self._since = now - self._since, now
        self._seconds[stage] = self._seconds.get(stage, 0.0) + spent
        self._append({"stage": stage, "seconds": spent})

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage and their total, over all drivers; unsaved time of a lost one is missing."""
        return {**self._seconds, "total": sum(self._seconds.values())}

    def _forget(self, prefix: str) -> None:
        self._finals = {job: metrics for job, metrics in self._finals.items() if not job[1].startswith(prefix)}

    def _append(self, record: Mapping[str, Any]) -> None:
        """Append a line after the last complete one, and force it to disk."""
        first = "" if self._whole_bytes else json.dumps({"version": FORMAT_VERSION}) + "\n"
        lines = f"{first}{json.dumps(record)}\n".encode()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.seek(self._whole_bytes)
            file.truncate()
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._whole_bytes += len(lines)

    def _read(self) -> None:
        content = self._path.read_bytes()
        self._whole_bytes = content.rfind(b"\n") + 1
        lines = content[: self._whole_bytes].splitlines()
        try:
            records = [json.loads(line) for line in lines]
            if records and (version := records[0]["version"]) != FORMAT_VERSION:
                raise UserError(
                    f"{self._path} has format version {version}, this program reads {FORMAT_VERSION}; start anew under "
                    "another name"
                )
            for record in records[1:]:
                self._restore(record)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._path} is damaged ({error}); start anew under another name") from error

    def _restore(self, record: Mapping[str, Any]) -> None:
        if "compilation" in record:
            compiled, why = record["compilation"]
            self._compilation = compiled, why
        elif "gpu_type" in record:
            self._gpus[record["gpu_type"]] = GpuFigures.from_json(record["figures"])
        elif "identity" in record:
            self._identity = record["identity"]
        elif "dataset_digest" in record:
            self._dataset_digest = record["dataset_digest"]
        elif "confusion" in record:
            confusion = tuple(tuple(row) for row in record["confusion"])
            self._finals[record["protocol"], record["set"], record["network"]] = Metrics(confusion)
        elif "forgotten" in record:
            self._forget(record["forgotten"])
        elif "repeated" in record:
            self._repeated.append(record["repeated"])
        else:
            stage = record["stage"]
            self._seconds[stage] = self._seconds.get(stage, 0.0) + record["seconds"]
