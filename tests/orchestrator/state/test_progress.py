"""What a driver writes down as it goes: read by the next one, whatever the first was doing when it died."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.state.progress import Progress
from trainables.evaluation.metrics import Metrics

METRICS = Metrics(((3, 1), (0, 4)))
JOBS = [("challenge", "winner", 0), ("challenge", "winner", 1), ("soft", "random_real", 0)]


def filled(folder: Path) -> Path:
    progress = Progress(folder)
    progress.decide_compilation((True, "it pays"))
    for job in JOBS:
        progress.add_final(job, METRICS)
        progress.spend("finals")
    return folder / "progress.jsonl"


def test_the_next_driver_knows_what_the_first_has_done(tmp_path: Path) -> None:
    filled(tmp_path)
    first = Progress(tmp_path)
    assert first.compilation == (True, "it pays")
    assert first.finals == dict.fromkeys(JOBS, METRICS)
    first.spend("finals")
    first.spend("search")
    seconds = Progress(tmp_path).seconds()
    assert seconds == first.seconds()
    assert seconds["total"] == seconds["finals"] + seconds["search"] > 0


def test_what_may_have_changed_is_measured_again(tmp_path: Path) -> None:
    filled(tmp_path)
    for _ in range(2):
        progress = Progress(tmp_path)
        progress.forget_finals("winner")
        assert list(progress.finals) == JOBS[2:]
    assert (tmp_path / "progress.jsonl").read_text().count("forgotten") == 1
    progress.add_final(JOBS[1], METRICS)
    assert list(Progress(tmp_path).finals) == [JOBS[2], JOBS[1]]


def test_repeats_of_the_same_settings_have_the_same_number(tmp_path: Path) -> None:
    first, second = {"winner": {"lr_pixel": 0.1, "N": 3}}, {"winner": {"lr_pixel": 0.1, "N": 4}}
    numbers = [Progress(tmp_path).number_repeats(variants) for variants in (first, second, first, second)]
    assert numbers == [1, 2, 1, 2]


def test_a_decision_stays(tmp_path: Path) -> None:
    filled(tmp_path)
    progress = Progress(tmp_path)
    progress.decide_compilation((False, "another machine"))
    assert progress.compilation == Progress(tmp_path).compilation == (True, "it pays")


def test_nothing_is_written_before_there_is_something_to_say(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "sweep")
    assert progress.compilation is None and not progress.finals and progress.seconds() == {"total": 0}
    assert list(tmp_path.iterdir()) == []


def test_what_a_network_costs_does_not_grow_with_those_before_it(tmp_path: Path) -> None:
    file = filled(tmp_path)
    progress, sizes = Progress(tmp_path), [file.stat().st_size]
    for number in range(100, 130):
        before = file.read_bytes()
        progress.add_final(("challenge", "winner", number), METRICS)
        assert file.read_bytes().startswith(before)
        sizes.append(file.stat().st_size)
    assert len({later - earlier for earlier, later in pairwise(sizes)}) == 1


def test_wherever_a_driver_died_whole_lines_count_and_the_next_line_follows_them(tmp_path: Path) -> None:
    file = filled(tmp_path / "whole")
    content = file.read_bytes()
    for end in range(len(content)):
        folder = tmp_path / str(end)
        folder.mkdir()
        (folder / file.name).write_bytes(content[:end])
        lines = content[:end].count(b"\n")
        progress = Progress(folder)
        finals = sum(b"confusion" in line for line in content.splitlines()[:lines])
        assert list(progress.finals) == JOBS[:finals]
        progress.add_final(("hard", "late", 7), METRICS)
        assert list(Progress(folder).finals) == [*JOBS[:finals], ("hard", "late", 7)]
        for line in (folder / file.name).read_bytes().splitlines():
            json.loads(line)


@pytest.mark.parametrize("version", [3, 5])
def test_another_version_is_refused_by_its_number(tmp_path: Path, version: int) -> None:
    (tmp_path / "progress.jsonl").write_text(f'{{"version": {version}}}\n')
    with pytest.raises(UserError, match=rf"has format version {version}, this program reads 4; start anew"):
        Progress(tmp_path)


def test_a_file_that_was_written_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text('{"version": 3}')
    with pytest.raises(UserError, match=r"progress\.json is of a format version before 4, .* start anew"):
        Progress(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"confusion": 3}', '{"stage": "search", "seconds": "long"}'])
def test_damage_before_the_last_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "progress.jsonl").write_text(f'{{"version": 4}}\n{line}\n')
    with pytest.raises(UserError, match=r"progress\.jsonl is damaged \(.*start anew"):
        Progress(tmp_path)
