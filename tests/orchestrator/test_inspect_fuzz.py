"""Whatever is in a folder, `inspect` is right or says in one line what is wrong: exit code 0 or 2, no traceback."""

import json
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from orchestrator.inspect import main
from tests.support.odd_datasets import Drawn, draw_folder, draw_options, draw_parquet

MOST_BYTES = 2 * 2**30


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("examples", [25, pytest.param(500, marks=pytest.mark.rare)])
def test_any_dataset_is_described_or_refused_in_one_line(examples: int) -> None:
    before = peak_bytes()

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(st.data(), draw_options(), st.sampled_from((draw_folder, draw_parquet)))
    def check(data: st.DataObject, options: list[str], form: Callable[[Path], st.SearchStrategy[Drawn]]) -> None:
        with tempfile.TemporaryDirectory() as text:
            root = Path(text)
            drawn = data.draw(form(root / "data"))
            files = [root / "found.json", root / "my_space.py"]
            places = ["--workdir", root / "runs", "--json", files[0], "--write-space", files[1]]
            done = CliRunner().invoke(main, ["--data", str(root / "data"), *map(str, places), *options])
            note(f"{options} {sorted(root.rglob('*'))}\n{done.output}")
            if done.exit_code == 0:
                check_described(json.loads(files[0].read_text()), drawn)
                compile(files[1].read_text(encoding="utf-8"), "my_space.py", "exec")
            else:
                check_refused(done, files)
                assert options or not drawn.ordinary, done.output

    check()
    assert peak_bytes() - before < MOST_BYTES


def check_described(found: dict[str, object], drawn: Drawn) -> None:
    classes = found["classes"]
    assert isinstance(classes, list) and isinstance(found["class_means"], dict)
    names = [each["name"] for each in classes]
    assert len(set(names)) == len(names) >= 2 and list(found["class_means"]) == names
    assert all(each["train"] >= 1 and each["validation"] >= 1 for each in classes)
    assert sum(each[split] for each in classes for split in ("train", "validation", "test")) <= drawn.images
    means = [mean for values in found["class_means"].values() for mean in values]
    assert all(0 <= mean <= 1 for mean in means)


def check_refused(done: Result, files: list[Path]) -> None:
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("Error: "), done.stderr
    assert not [file for file in files if file.exists()]
