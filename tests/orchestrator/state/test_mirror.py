"""The mirror of a sweep's folder at a URI: another machine resumes from it when one is lost with its disk.

A machine is a cache folder of its own, $XDG_CACHE_HOME; the URI is file://, through the same pyarrow.fs as s3:// and gs://.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import ClusterError, UserError
from orchestrator.state.lock import exclusive_lock
from orchestrator.state.looking import fetch
from orchestrator.state.mirror import Mirror
from orchestrator.state.settings_file import check_same_settings, read_settings, write_settings
from orchestrator.state.workdir import Workdir
from orchestrator.ui import _settings
from tests.support.builders import sweep_settings
from tests.support.paths import ROOT
from tests.support.servers import BUCKET, gs_server, s3_server
from trainables.storage.shared_folder import SharedFolder

SWEEP = "sweep"
Machine = Callable[[str], "Driver"]


class Driver:
    """A sweep's driver on one machine."""

    def __init__(self, uri: str) -> None:
        self.workdir = Workdir.at(uri)
        self.folder = self.workdir.sweep(SWEEP)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mirror = Mirror(self.workdir, SWEEP, patience_s=0)

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / name).write_text(text)

    def database(self, name: str = "optuna.db") -> sqlite3.Connection:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS facts (value)")
        return connection

    def facts(self, name: str = "optuna.db") -> list[int]:
        with closing(sqlite3.connect(self.folder / name)) as connection:
            return [value for (value,) in connection.execute("SELECT value FROM facts ORDER BY value")]

    def files(self) -> dict[str, str]:
        """Return what there is, less databases and what is the mirror's own."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        texts = {path.relative_to(self.folder).as_posix(): path for path in found if ".db" not in path.name}
        return {name: path.read_text() for name, path in texts.items() if name not in (".lock", ".mirror.json")}


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def machine(tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Go on on the machine of that name, in a new driver."""

    def on(name: str) -> Driver:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Driver(f"file://{bucket}")

    return on


def objects(bucket: Path) -> list[str]:
    folder = bucket / "sweeps" / SWEEP
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestPushAndPull:
    def test_another_machine_has_all_that_was_pushed(self, machine: Machine, bucket: Path) -> None:
        first = machine("first")
        first.write(**{"settings.json": "{}", "progress.jsonl": "1"})
        (first.folder / "figures").mkdir()
        (first.folder / "figures" / "a.png").write_text("picture")
        with closing(first.database()) as database, closing(first.database("journal/journal.db")):
            database.execute("INSERT INTO facts VALUES (1)")
            first.mirror.push()
            database.execute("INSERT INTO facts VALUES (2)")
            first.mirror.push()
        second = machine("second")
        assert second.folder != first.folder and not any(second.folder.iterdir())
        second.mirror.pull()
        assert second.files() == {"settings.json": "{}", "progress.jsonl": "1", "figures/a.png": "picture"}
        assert second.facts() == [1, 2] and second.facts("journal/journal.db") == []
        # Of a database the last alone is there.
        assert [name.partition(".")[0] for name in objects(bucket) if name.endswith(".db")] == [
            "journal/journal",
            "optuna",
        ]

    def test_what_is_there_already_or_nobody_needs_is_left_out(self, machine: Machine, bucket: Path) -> None:
        driver = machine("first")
        for name in (
            "checkpoints/trial-000.safetensors",
            "tune/state.json",
            ".lock",
            ".report.md.ab.partial",
            "report.md",
        ):
            (driver.folder / name).parent.mkdir(exist_ok=True)
            (driver.folder / name).write_text("")
        driver.mirror.push()
        assert objects(bucket) == ["mirror.json", "report.md"]

    def test_nothing_new_is_no_generation(self, machine: Machine, bucket: Path) -> None:
        driver = machine("first")
        driver.write(a="1")
        driver.mirror.push()
        before = (bucket / "sweeps" / SWEEP / "mirror.json").read_bytes()
        driver.mirror.push()
        machine("first").mirror.push()  # nor after a restart
        assert (bucket / "sweeps" / SWEEP / "mirror.json").read_bytes() == before

    def test_a_driver_that_died_before_it_pushed_goes_on_with_what_it_has(self, machine: Machine) -> None:
        driver = machine("first")
        driver.write(a="pushed")
        driver.mirror.push()
        driver.write(a="only here")
        again = machine("first")
        again.mirror.pull()
        assert again.files() == {"a": "only here"}
        again.mirror.push()
        other = machine("second")
        other.mirror.pull()
        assert other.files() == {"a": "only here"}

    def test_a_newer_generation_replaces_the_folder(self, machine: Machine) -> None:
        first = machine("first")
        first.write(a="1", gone="1")
        first.mirror.push()
        second = machine("second")
        second.mirror.pull()
        (second.folder / "gone").unlink()
        second.write(a="2", b="2")
        second.mirror.push()
        first = machine("first")
        first.write(a="never pushed", c="never pushed")
        (first.folder / ".lock").touch()
        first.mirror.pull()
        assert first.files() == {"a": "2", "b": "2"} and (first.folder / ".lock").exists()

    def test_a_pull_that_was_cut_off_is_done_again(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        first = machine("first")
        first.write(a="1", b="1")
        first.mirror.push()
        second = machine("second")
        download = SharedFolder.download

        def fail(self: SharedFolder, name: str, path: Path) -> str:
            if name == "b":
                raise KeyboardInterrupt
            return download(self, name, path)

        with monkeypatch.context() as cut:
            cut.setattr(SharedFolder, "download", fail)
            with pytest.raises(KeyboardInterrupt):
                second.mirror.pull()
        assert second.files() == {"a": "1"}
        second = machine("second")
        second.mirror.pull()
        assert second.files() == {"a": "1", "b": "1"}

    def test_on_a_disk_nothing_is_done(self, tmp_path: Path) -> None:
        workdir = Workdir(tmp_path)
        workdir.sweep(SWEEP).mkdir(parents=True)
        (workdir.sweep(SWEEP) / "a").touch()
        mirror = Mirror(workdir, SWEEP)
        mirror.pull()
        mirror.push()
        assert [path.name for path in tmp_path.rglob("*")] == ["sweeps", SWEEP, "a"]
        assert workdir.databases(SWEEP) == workdir

    def test_another_version_is_refused(self, machine: Machine, bucket: Path) -> None:
        driver = machine("first")
        driver.write(a="1")
        driver.mirror.push()
        place = bucket / "sweeps" / SWEEP / "mirror.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "version": 2}))
        with pytest.raises(UserError, match=r"mirror\.json has format version 2, this program reads 1"):
            machine("second").mirror.pull()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_at_a_service_it_is_the_same(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with {"s3": s3_server, "gs": gs_server}[scheme]() as environment:
        for name, value in {**environment, "XDG_CACHE_HOME": str(tmp_path / "first")}.items():
            monkeypatch.setenv(name, value)
        first = Driver(f"{scheme}://{BUCKET}/{scheme} runs")
        first.workdir.check_writable()
        first.write(**{"settings.json": "{}"})
        for number in range(3):
            with closing(first.database()) as database:
                database.execute("INSERT INTO facts VALUES (?)", (number,))
            first.mirror.push()
        assert first.workdir.sweeps() == [SWEEP]
        names = first.workdir.shared_sweep(SWEEP).sizes()
        assert sorted(name.partition(".")[0] for name in names) == ["mirror", "optuna", "settings"]

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
        second = Driver(str(first.workdir))
        second.mirror.pull()
        assert second.files() == {"settings.json": "{}"} and second.facts() == [0, 1, 2]
        second.write(a="2")
        second.mirror.push()
        first.write(a="3")
        with pytest.raises(ClusterError, match="another driver"):
            first.mirror.push()


class TestOneDriver:
    def test_the_one_that_was_taken_for_lost_stops(self, machine: Machine, bucket: Path) -> None:
        lost = machine("first")
        lost.write(a="1")
        lost.mirror.push()
        other = machine("second")
        other.mirror.pull()
        other.write(a="2")
        other.mirror.push()
        lost.write(a="3")
        with pytest.raises(ClusterError, match=rf"another driver has resumed the sweep 'sweep' at file://{bucket}"):
            lost.mirror.push()
        lost.mirror.push()  # it has said so, and does no more
        assert (bucket / "sweeps" / SWEEP / "a").read_text() == "2"

    def test_two_that_begin_a_sweep_of_one_name(self, machine: Machine) -> None:
        first, second = machine("first"), machine("second")
        for driver in (first, second):
            driver.mirror.pull()
            driver.write(a=str(driver.folder))
        first.mirror.push()
        with pytest.raises(ClusterError, match="another driver"):
            second.mirror.push()

    def test_who_pushed_last_of_two_at_the_same_moment_is_known(self, machine: Machine, bucket: Path) -> None:
        first = machine("first")
        first.write(a="1")
        first.mirror.push()
        place = bucket / "sweeps" / SWEEP / "mirror.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "writer": "another"}))  # of the same generation
        first.write(a="2")
        with pytest.raises(ClusterError, match="another driver"):
            first.mirror.push()


class TestAccidents:
    @pytest.mark.parametrize("method", ["upload", "write"])
    def test_a_push_that_is_cut_off_leaves_the_generation_before_whole(
        self, machine: Machine, bucket: Path, method: str
    ) -> None:
        """The driver is killed at the second database, or before mirror.json."""
        first = machine("first")
        first.write(a="1")
        with closing(first.database()) as study, closing(first.database("journal/journal.db")) as journal:
            first.mirror.push()
            for database in (study, journal):
                database.execute("INSERT INTO facts VALUES (1)")
        code = """
import os, signal, sys
from orchestrator.state.mirror import Mirror
from orchestrator.state.workdir import Workdir
from trainables.storage.shared_folder import SharedFolder
was = getattr(SharedFolder, sys.argv[2])
def killed(self, name, what):
    if name.startswith(("optuna", "mirror")):
        os.kill(os.getpid(), signal.SIGKILL)
    was(self, name, what)
setattr(SharedFolder, sys.argv[2], killed)
Mirror(Workdir.at(sys.argv[1]), "sweep").push()
"""
        done = subprocess.run(
            [sys.executable, "-c", code, f"file://{bucket}", method],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )
        assert done.returncode == -signal.SIGKILL
        second = machine("second")
        second.mirror.pull()
        assert second.facts() == second.facts("journal/journal.db") == []
        again = machine("first")
        again.mirror.pull()
        again.mirror.push()
        third = machine("third")
        third.mirror.pull()
        assert third.facts() == third.facts("journal/journal.db") == [1]

    def test_a_database_is_pushed_as_it_is_between_two_transactions(self, machine: Machine) -> None:
        driver = machine("first")
        with closing(driver.database()) as database:
            stop = threading.Event()

            def write() -> None:
                number = 0
                while not stop.is_set():
                    database.execute("BEGIN")
                    for _ in range(2):  # a half transaction would show
                        database.execute("INSERT INTO facts VALUES (?)", (number,))
                    database.execute("COMMIT")
                    number += 1

            writer = threading.Thread(target=write)
            writer.start()
            try:
                seen = []
                for turn in range(10):
                    time.sleep(0.01)
                    driver.mirror.push()
                    other = machine(f"reader {turn}")
                    other.mirror.pull()
                    facts = other.facts()
                    assert facts[::2] == facts[1::2] == list(range(len(facts) // 2))
                    seen.append(len(facts))
            finally:
                stop.set()
                writer.join()
        assert seen == sorted(set(seen))  # each further than the one before

    def test_a_uri_that_is_away_for_a_while_is_waited_for(self, machine: Machine, bucket: Path) -> None:
        driver = machine("first")
        bucket.write_text("in the way")
        driver.write(a="1")
        back = threading.Timer(0.5, bucket.unlink)
        back.start()
        driver.mirror.push(patience_s=30)
        assert objects(bucket) == ["a", "mirror.json"]

    def test_one_that_stays_away_ends_the_sweep(self, machine: Machine, bucket: Path) -> None:
        driver = machine("first")
        bucket.write_text("in the way")
        driver.write(a="1")
        with pytest.raises(ClusterError, match=rf"^file://{bucket}/.* does not work .*; make .* writable$"):
            driver.mirror.push()

    def test_a_sweep_that_is_gone_there_is_not_gone_on_with_nor_removed_here(
        self, machine: Machine, bucket: Path
    ) -> None:
        driver = machine("first")
        driver.write(a="1")
        driver.mirror.push()
        bucket.rename(bucket.with_name("not mounted"))
        with pytest.raises(ClusterError, match=rf"was at file://{bucket}/sweeps/sweep and is missing there now"):
            machine("first").mirror.pull()
        assert driver.files() == {"a": "1"}

    def test_a_corrupt_database_is_not_taken(self, machine: Machine, bucket: Path) -> None:
        first = machine("first")
        first.database().close()
        first.mirror.push()
        (place,) = (bucket / "sweeps" / SWEEP).glob("optuna.*.db")
        content = bytearray(place.read_bytes())
        content[5000] ^= 1
        place.write_bytes(content)
        with pytest.raises(ClusterError, match=r"optuna\..*\.db is corrupt"):
            machine("second").mirror.pull()


class TestPace:
    def test_the_study_is_pushed_at_once_and_what_mlflow_needs_now_and_then(self, machine: Machine) -> None:
        driver = machine("first")
        with closing(driver.database()) as study, closing(driver.database("journal/journal.db")) as tracking:
            driver.mirror.push()
            for number in range(50):
                for database in (study, tracking):
                    database.execute("INSERT INTO facts VALUES (?)", (number,))
                driver.mirror.push(everything=False)
        other = machine("second")
        other.mirror.pull()
        assert other.facts() == list(range(50))
        lag = other.facts("journal/journal.db")
        assert lag == list(range(len(lag))) and len(lag) < 40
        driver.mirror.push()
        other.mirror.pull()
        assert other.facts("journal/journal.db") == list(range(50))


class TestWorkdir:
    @pytest.mark.parametrize(
        "text",
        ["s3://bucket?region=x", "s3://", "s3:///prefix", "s3://key:secret@bucket/p", "hdfs://host/p", "http://host/p",
         "file://relative/path", "gs://bucket/a#b"],
    )  # fmt: skip
    def test_what_cannot_be_one_is_refused(self, text: str) -> None:
        with pytest.raises(
            UserError, match=r"a workdir is a folder, s3://BUCKET/PREFIX, .*AWS_ENDPOINT_URL"
        ) as refused:
            Workdir.at(text)
        assert text in str(refused.value) and "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        "text", ["s3://bucket", "s3://bucket/", "gs://bucket/a/b", "file:///tmp/x", "runs", "/a/b"]
    )
    def test_what_can_be_one_is_itself(self, text: str) -> None:
        assert str(Workdir.at(text)) == text.rstrip("/")
        assert Workdir.at(text).here() == Workdir.at(text)

    def test_one_that_cannot_be_written_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(
            UserError, match=r"the workdir file://.*/file/runs cannot be written \(.*; check the folder"
        ):
            Workdir.at(f"file://{tmp_path}/file/runs").check_writable()

    def test_looking_whether_it_can_be_written_leaves_nothing(self, tmp_path: Path, machine: Machine) -> None:
        driver = machine("first")
        driver.workdir.check_writable()
        assert not any(path.is_file() for path in (tmp_path / "bucket").rglob("*"))

    def test_each_sweep_has_databases_of_its_own(self, machine: Machine) -> None:
        workdir = machine("first").workdir
        assert workdir.databases("a").optuna_database == workdir.sweep("a") / "optuna.db"
        settings = sweep_settings(workdir=workdir)
        assert settings.places.checkpoints == f"{workdir}/sweeps/a/checkpoints"
        assert settings.resume_command.endswith(f"--resume a --workdir {workdir}")

    def test_sweeps_are_known_by_their_names_on_any_machine(self, machine: Machine) -> None:
        first = machine("first")
        settings = sweep_settings(name=SWEEP, seed=3, workdir=first.workdir)
        write_settings(settings)
        first.mirror.push()
        workdir = machine("second").workdir
        assert read_settings(workdir, SWEEP).seed == 3
        with pytest.raises(UserError, match=r"no sweep named 'b' in file://.*; there are sweep"):
            read_settings(workdir, "b")
        with pytest.raises(UserError, match=r"with other settings \(seed differ\)"):
            check_same_settings(sweep_settings(name=SWEEP, seed=4, workdir=workdir))


class TestPages:
    @pytest.fixture
    def pushed(self, machine: Machine) -> Iterator[Driver]:
        driver = machine("first")
        driver.write(**{"settings.json": "{}"})
        with closing(driver.database()) as database:
            database.execute("INSERT INTO facts VALUES (1)")
            driver.mirror.push()
        yield driver

    def test_the_databases_are_those_of_the_sweep_as_it_is_there(self, pushed: Driver, machine: Machine) -> None:
        other = machine("second")
        fetch(sweep_settings(name=SWEEP, workdir=other.workdir).places)
        found = other.workdir.databases(SWEEP)
        assert found.optuna_database == other.folder / "optuna.db"
        assert other.facts() == [1]

    def test_a_folder_whose_driver_is_here_is_newer_than_the_uri(self, pushed: Driver, machine: Machine) -> None:
        other = machine("second")
        places = sweep_settings(name=SWEEP, workdir=other.workdir).places
        fetch(places)
        places.settings_file.write_text("of the driver here")
        with exclusive_lock(places):
            pushed.write(**{"settings.json": "{} "})
            pushed.mirror.push()
            fetch(places)
            assert places.settings_file.read_text() == "of the driver here"
        fetch(places)
        assert places.settings_file.read_text() == "{} "

    def test_a_sweep_must_be_named(self, pushed: Driver, machine: Machine) -> None:
        with pytest.raises(UserError, match=r"--sweep names a sweep of file://.*; there are sweep"):
            _settings(machine("second").workdir, None)
        with pytest.raises(UserError, match=r"no sweep named 'b' in file://.*; there are sweep"):
            _settings(machine("second").workdir, "b")
