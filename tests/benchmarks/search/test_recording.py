"""Recorded curves: their file, and a recording that stops and goes on."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.search import recording
from benchmarks.search.curves import Curve, Rung, read_curves, write_curves

SPACE = """
from dataclasses import replace
from search_spaces import Fixed, load

DIGITS = load("digits")
few = {"iterations": 4, "validation_every_iterations": 2, "first_rung_iterations": 2, "expert_count": 1}
few |= {"validation_epochs": 2}
SPACE = replace(DIGITS, name="few", parameters={**DIGITS.parameters, **{k: Fixed(v) for k, v in few.items()}})
"""


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    rungs = tuple(
        Rung(iteration=at, accuracies=(0.5, at / 100), matching_loss=0.9, skip_rate=0.25, seconds=at / 7)
        for at in (25, 50)
    )
    curves = [
        Curve(number=0, around=False, settings={"N": 20, "lr_pixel": 30.5}, repeat=0, rungs=rungs, seconds=8.0),
        Curve(
            number=0, around=False, settings={"N": 20, "lr_pixel": 30.5}, repeat=1, rungs=(), failed="α", seconds=1.0
        ),
        Curve(number=3, around=True, settings={"N": 11, "lr_pixel": 3.0}, repeat=0, rungs=rungs[:1], seconds=4.0),
    ]
    write_curves(tmp_path / "curves.parquet", reversed(curves), "few")
    assert read_curves(tmp_path / "curves.parquet") == curves
    assert rungs[1].accuracy == 0.5


@pytest.mark.rare
def test_a_recording_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORDED", tmp_path / "recorded")
    (tmp_path / "few.py").write_text(SPACE)
    command = [
        "--space",
        str(tmp_path / "few.py"),
        "--ipc",
        "1",
        "--settings",
        "2",
        "--workdir",
        str(tmp_path / "runs"),
    ]

    def run(half: str, *more: str) -> str:
        done = CliRunner().invoke(recording.main, [*command, "--half", half, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "4 curves are left" in run("sobol", "--minutes", "0")
    run("sobol")
    file = tmp_path / "recorded" / "few-1-sobol.parquet"
    curves = read_curves(file)
    assert [(curve.number, curve.repeat) for curve in curves] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    whole = [curve for curve in curves if not curve.failed]
    for curve in whole:
        assert [rung.iteration for rung in curve.rungs] == [2, 4]
        assert [len(rung.accuracies) for rung in curve.rungs] == [2, 4]
        assert 0 < curve.rungs[0].seconds < curve.rungs[1].seconds <= curve.seconds
    content = file.read_bytes()
    file.unlink()
    assert "4 of 4 curves" in run("sobol") and file.read_bytes() == content
    run("around")
    assert all(curve.around for curve in read_curves(tmp_path / "recorded" / "few-1-around.parquet"))
