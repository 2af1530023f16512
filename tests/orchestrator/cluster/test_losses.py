"""Which errors mean a lost process, the reason told, and the pauses of a patience with a clock of its own."""

import errno
import io

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from rich.console import Console

from orchestrator.cluster.losses import LONGEST_PAUSE_S, Patience, is_lost, reason_of
from orchestrator.errors import ClusterError
from tests.support.memory import FULL_MEMORY

TORCH = (
    "[enforce fail at alloc_cpu.cpp:125] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
)


def raised(cause: Exception) -> RayTaskError:
    """Return what `ray.get` raises of a task that raised an error, or one of whose arguments failed with it."""
    error: RayTaskError = RayTaskError("step", f"Traceback\n{cause!r}", cause, ip="127.0.0.1", pid=1)
    return error


def lost_object() -> ObjectLostError:
    return ObjectLostError("ab", None, "")


LOST = [
    RayActorError(),
    ActorDiedError(),
    ActorUnavailableError("no answer", None),
    OutOfMemoryError(FULL_MEMORY),
    WorkerCrashedError(),
    NodeDiedError("gone"),
    lost_object(),
    MemoryError("8 GiB"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError(TORCH),
]
RAISED = [ValueError("wrong"), RuntimeError("CUDA out of memory"), OSError(errno.ENOSPC, "full"), KeyError(1)]


class TestErrors:
    @pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
    def test_a_lost_process_is_known_alone_and_as_the_cause_of_anothers_error(self, error: Exception) -> None:
        assert is_lost(error)
        assert is_lost(raised(error)) and is_lost(raised(error).as_instanceof_cause())
        assert "\n" not in reason_of(error) and reason_of(raised(error)) == reason_of(error)

    @pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
    def test_what_the_code_itself_raises_is_no_loss(self, error: Exception) -> None:
        assert not is_lost(error)
        assert not is_lost(raised(error)) and not is_lost(raised(error).as_instanceof_cause())

    def test_an_error_in_the_creation_of_an_actor_is_no_loss_unless_it_means_one(self) -> None:
        assert not is_lost(ActorDiedError(raised(ValueError("wrong"))))
        assert is_lost(ActorDiedError(raised(MemoryError("8 GiB"))))
        assert reason_of(ActorDiedError(raised(MemoryError("8 GiB")))) == "its node has no memory left (8 GiB)"

    def test_other_errors_of_ray_are_no_loss(self) -> None:
        assert not is_lost(RayError("anything"))


class TestReasons:
    def test_the_memory_monitors_names_node_and_the_largest_process_that_is_not_rays(self) -> None:
        reason = reason_of(OutOfMemoryError(FULL_MEMORY))
        assert reason == (
            "Ray ended it when the memory of node 10.0.0.7 was full, 22.45 of 23.54 GB: "
            "PID 4711 (python3 hog.py --gigabytes 10) has 10.12 GB"
        )
        assert "documentation" in FULL_MEMORY and "http" not in reason

    def test_of_rays_own_the_largest_where_there_is_no_other(self) -> None:
        rows = FULL_MEMORY.replace("4711\t10.12\t/usr/bin/python3 hog.py --gigabytes 10\n", "")
        assert reason_of(OutOfMemoryError(rows)).endswith("PID 4712 (ray::DistillationTrial.train) has 4.03 GB")

    def test_a_crash_a_node_and_a_reason_of_rays(self) -> None:
        died = RayActorError(
            error_msg="The actor died unexpectedly before finishing this task.\n\tclass_name: A\nThe actor is dead "
            "because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: long advice"
        )
        assert reason_of(died) == reason_of(WorkerCrashedError()) == "it was killed, or it crashed"
        gone = RayActorError(error_msg="The actor died because its node has died. Node Id: ab")
        assert reason_of(gone) == reason_of(NodeDiedError("gone")) == "its node was lost"
        other = RayActorError(
            error_msg=f"The actor died unexpectedly before finishing this task.\n\tid: 1\n{'a ' * 99}"
        )
        assert reason_of(other).startswith("a a") and len(reason_of(other)) <= 160


class Clock:
    """A time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Stage:
    """A patience, its clock and what it said."""

    def __init__(self, seconds: float = 600.0) -> None:
        self.clock, self._said = Clock(), io.StringIO()
        self.patience = Patience(
            seconds, Console(file=self._said, width=80), "resume with: mdatm", clock=lambda: self.clock.now,
            sleep=self.clock.sleep,
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        return self._said.getvalue().splitlines()

    def lose(self, times: int, name: str = "trial-000") -> list[float]:
        """Lose a process several times, waiting after each; return the pauses."""
        before = len(self.clock.slept)
        for _ in range(times):
            self.patience.lost(name, OutOfMemoryError(FULL_MEMORY))
            self.patience.wait()
        return self.clock.slept[before:]


class TestPatience:
    def test_the_first_loss_costs_no_pause_and_the_pauses_grow_to_a_minute(self) -> None:
        assert Stage().lose(9) == [0, 1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]

    def test_every_loss_has_one_line_that_says_what_took_the_memory_and_when_it_goes_on(self) -> None:
        stage = Stage()
        stage.patience.workers(4)
        stage.lose(3)
        assert [line.partition("has 10.12 GB; ")[2] for line in stage.lines] == [
            "it is started again at once", "it is started again in 1 s, at most 2 at a time",
            "it is started again in 2 s, at most 1 at a time",
        ]  # fmt: skip
        assert all(line.startswith("The process of trial-000 was lost: Ray ended it when") for line in stage.lines)

    def test_processes_lost_at_once_share_a_pause(self) -> None:
        stage = Stage()
        for _ in range(2):
            for number in range(4):
                stage.patience.lost(f"trial-{number}", WorkerCrashedError())
        assert stage.patience.pause_left == 1
        assert len(stage.lines) == 8

    def test_fewer_run_at_once_and_after_a_calm_time_more_again(self) -> None:
        stage = Stage(seconds=100)
        assert stage.patience.workers(8) == 8
        seen = []
        for _ in range(6):
            stage.lose(1)
            seen.append(stage.patience.workers(8))
        assert seen == [8, 4, 2, 1, 1, 1]
        for calm, workers in ((50, 1), (60, 2), (60, 2), (60, 4), (100, 8), (100, 8)):
            stage.clock.now += calm
            stage.patience.progress("trial-000")
            assert stage.patience.workers(8) == workers

    def test_progress_begins_anew(self) -> None:
        stage = Stage(seconds=10)
        for _ in range(5):
            assert stage.lose(3) == [0, 1, 2]
            stage.clock.now += 20
            stage.patience.progress("trial-000")
            stage.patience.check()

    def test_progress_of_others_keeps_the_pauses_of_one_that_is_always_lost(self) -> None:
        stage = Stage()
        stage.lose(3)
        stage.patience.progress("trial-001")
        assert stage.lose(1) == [1]

    def test_it_ends_after_its_time_with_the_reason_and_the_command(self) -> None:
        stage = Stage(seconds=180)
        while stage.patience.over is None:
            stage.patience.check()
            stage.lose(1)
        assert stage.clock.now - 1000 == 180  # the last attempt is at its end
        with pytest.raises(ClusterError) as caught:
            stage.patience.check()
        assert str(caught.value) == (
            "no progress for 3 min, longer than --patience 3 min: the process of trial-000 was lost again (Ray "
            "ended it when the memory of node 10.0.0.7 was full, 22.45 of 23.54 GB: PID 4711 (python3 hog.py "
            "--gigabytes 10) has 10.12 GB); remove the cause, then resume with: mdatm"
        )
        assert caught.value.exit_code == 3

    def test_however_short_it_is_some_attempts_are_made(self) -> None:
        stage = Stage(seconds=0.1)
        assert stage.lose(5) == [0, 1, 1, 1, 0]
        assert stage.patience.over is not None
