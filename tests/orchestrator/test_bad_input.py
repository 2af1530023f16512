"""Bad input: one clear line, exit 2, nothing left behind."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.evaluate import main as evaluate
from orchestrator.experts import main as experts
from orchestrator.report import main as report
from orchestrator.sweep import main as sweep
from orchestrator.ui import main as ui
from tests.support.processes import assert_refused, run
from tests.support.sweeps import SMALL, Sweep

BEYOND_HORIZON = """
from search_spaces import Fixed, Integer, Space

SPACE = Space(
    name="mine", title="Too far?", dataset="digits", reference="nobody's",
    parameters={
        "N": Fixed(5), "M": Integer(1, 4, first=2), "T_minus": Fixed(0), "T_width": Fixed(6), "T_growth": Fixed(2),
        "interval": Fixed(5), "lr_pixel": Fixed(1.0), "lr_alpha": Fixed(0.0), "batch_syn": Fixed(10), "ipc": Fixed(1),
        "horizon_epochs": Fixed(11), "validation_epochs": Fixed(5), "full_data_epochs": Fixed(1), "trials": Fixed(2),
        "validation_every_iterations": Fixed(5), "first_rung_iterations": Fixed(5), "iterations": Fixed(10),
    },
)
"""


def refused(tmp_path: Path, *arguments: object, words: tuple[str, ...]) -> None:
    """The sweep refuses its arguments with these words and leaves no file."""
    workdir = tmp_path / "runs"
    assert_refused(run("orchestrator.sweep", "--workdir", workdir, *arguments), *words)
    assert not workdir.exists()


def test_unknown_space(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digitz", words=("digitz", "did you mean digits?", "ti_ranges"))


def test_unknown_set_key(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digits", "--set", "lr_pixle=3", words=("lr_pixle", "lr_pixel"))


def test_set_without_a_value(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digits", "--set", "ipc", words=("--set", "KEY=VALUE", "ipc"))


def test_an_unknown_preset(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digits", "--preset", "mdatm", words=("unknown preset mdatm", "did you mean m_datm?"))


def test_what_a_study_does_not_take(tmp_path: Path) -> None:
    trials = ("trials of a study is 9", "3 variants × 3 repeats", "not 5")
    refused(tmp_path, "--space", "digits_range_study", "--trials", 5, words=trials)
    preset = ("T_minus", "early, medium, late", "--preset mtt would set it for all")
    refused(tmp_path, "--space", "digits_range_study", "--preset", "mtt", words=preset)


def test_memory_that_is_no_amount(tmp_path: Path) -> None:
    done = run("orchestrator.sweep", "--space", "digits", "--memory-budget", "4 apples", "--workdir", tmp_path / "runs")
    assert done.returncode == 2
    assert "'4 apples' is not an amount of memory; write 800MB or 4GB" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_settings_that_cannot_work_together(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digits", "--set", "lr_label=5", words=("lr_label", "label_mode"))


def test_more_images_than_a_class_has_before_experts_are_trained(tmp_path: Path) -> None:
    done = run("orchestrator.sweep", "--space", "digits", "--set", "ipc=120", "--workdir", tmp_path / "runs")
    assert_refused(done, "106 training images, fewer than ipc = 120; lower ipc")
    assert not list((tmp_path / "runs").glob("sweeps/*")) and not list((tmp_path / "runs").glob("experts/*"))


def test_a_space_beyond_its_horizon(tmp_path: Path) -> None:
    space = tmp_path / "mine.py"
    space.write_text(BEYOND_HORIZON)
    refused(tmp_path, "--space", space, words=("horizon_epochs", "12", "11"))


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "ti_ranges", words=("tiny_imagenet", "--data DIR", "tiny-imagenet-200"))
    refused(tmp_path, "--space", "cifar10_ranges", "--data", tmp_path / "no", words=("is not a folder", "--data DIR"))


def test_an_unwritable_workdir() -> None:
    # /proc refuses new files even to root, who may otherwise write anywhere.
    assert_refused(run("orchestrator.sweep", "--space", "digits", "--workdir", "/proc/runs"), "/proc/runs", "--workdir")


def test_a_name_that_is_no_folder_name(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digits", "--name", "../up", words=("../up", "--name"))


def test_a_share_of_a_gpu_out_of_range(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digits", "--gpus-per-trial", "1.5", words=("--gpus-per-trial", "1.5"))


@pytest.mark.slow
def test_gpus_per_trial_without_a_gpu(tmp_path: Path) -> None:
    refused(tmp_path, "--space", "digits", "--gpus-per-trial", "0.5", words=("--gpus-per-trial", "GPU", "has none"))


@pytest.fixture
def web_server() -> Iterator[int]:
    """Something that listens but is no Ray cluster."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()


@pytest.mark.slow
def test_addresses_where_no_cluster_answers(tmp_path: Path, web_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens; something else listens, plainly and to clients; and nothing where `auto` looks."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # else it finds whatever else runs on the machine
    addresses = ["127.0.0.1:1", f"127.0.0.1:{web_server}", f"ray://127.0.0.1:{web_server}", "auto"]
    with ThreadPoolExecutor(len(addresses)) as pool:
        arguments = ("--space", "digits", "--workdir", tmp_path / "runs", "--address")
        for address, done in zip(
            addresses, pool.map(lambda address: run("orchestrator.sweep", *arguments, address), addresses), strict=True
        ):
            assert_refused(done, "no Ray cluster answers", f"--address {address} ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
class TestCorruptExperts:
    @pytest.fixture
    def damaged(self, first: Sweep, tmp_path: Path) -> tuple[Path, Path]:
        """A copy of a workdir's experts and datasets, and the file of expert 1 in it."""
        for part in ("experts", "datasets"):
            shutil.copytree(first.workdir / part, tmp_path / "runs" / part)
        (expert,) = (tmp_path / "runs" / "experts").glob("*/expert-0001.arrow")
        return tmp_path / "runs", expert

    @pytest.mark.parametrize("damage", [pytest.param("truncated", marks=pytest.mark.rare), "flipped"])
    def test_are_named_and_never_used(self, damaged: tuple[Path, Path], damage: str) -> None:
        workdir, expert = damaged
        content = bytearray(expert.read_bytes())
        if damage == "truncated":
            del content[-100:]
        else:
            content[len(content) // 2] ^= 1
        expert.write_bytes(content)
        done = run("orchestrator.sweep", *SMALL, "--workdir", workdir)
        assert_refused(done, str(expert), "corrupt", "--retrain-corrupt")
        assert not (workdir / "sweeps").exists()
        assert expert.read_bytes() == content

    @pytest.mark.rare
    def test_are_trained_again_on_request_to_the_same_bits(self, damaged: tuple[Path, Path]) -> None:
        workdir, expert = damaged
        whole = expert.read_bytes()
        expert.write_bytes(whole[:-100])
        arguments = ("--space", "digits", "--experts", 2, "--workdir", workdir)
        done = run("orchestrator.experts", *arguments, "--retrain-corrupt")
        assert done.returncode == 0, done.stderr
        assert "1 trained, 1 reused" in done.stdout
        assert expert.read_bytes() == whole


SEARCHED_TOO_FAR = BEYOND_HORIZON.replace('"N": Fixed(5)', '"N": Integer(10, 10**30, first=10)')


class TestBeforeAnything:
    """What a command refuses while it reads its options; in this process, because nothing is started."""

    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("--workdir", "", "--workdir is a path, and this one is empty"),
            ("--workdir", "a\nb", "without line breaks"),
            ("--workdir", "what?", "a workdir's path has no ?"),
            ("--workdir", "~no-such-user/runs", "nobody's home"),
            ("--data", "", "--data is a path, and this one is empty"),
            ("--data", "x" * 300, "more than 255 bytes"),
            ("--storage-path", "", "--storage-path is a path, and this one is empty"),
            ("--tracking-uri", "", "--tracking-uri is empty"),
            ("--study-uri", "", "--study-uri is a database's URI"),
            ("--study-uri", "sqlite://", "in memory"),
            ("--address", "", "--address is empty"),
            ("--name", "", "a sweep's name is one line"),
            ("--name", "x" * 300, "not one of 300 bytes"),
            ("--name", "a\nb", "a sweep's name is one line"),
            ("--name", "-rf", "with - or a dot"),
            ("--name", "..", "with - or a dot"),
            ("--resume", "x" * 300, "not one of 300 bytes"),
            ("--set", "trials=1000000000000", "trials must be a whole number of at most 1,000,000"),
            ("--set", f"N={10**400}", "not a number of more than 30 digits"),
        ],
    )  # fmt: skip
    def test_options_are_refused_in_a_line(
        self, option: str, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        space = [] if option == "--resume" else ["--space", "digits"]
        for plan in ([], ["--plan"]):
            done = CliRunner().invoke(sweep, [*space, option, value, *plan])
            assert done.exit_code == 2 and words in done.output, done.output
            assert done.output.startswith("Error: ") and len(done.output.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []

    def test_a_range_without_end(self, tmp_path: Path) -> None:
        space = tmp_path / "space.py"
        space.write_text(SEARCHED_TOO_FAR)
        done = CliRunner().invoke(sweep, ["--space", str(space), "--plan"])
        assert (
            done.exit_code == 2 and "N must be a whole number of at most 1,000,000, not a number of more" in done.output
        )

    @pytest.mark.parametrize("place", ["/proc/checkpoints", "/dev/null/checkpoints", "nosuch://bucket/checkpoints"])
    def test_checkpoints_that_cannot_be_written(self, place: str, tmp_path: Path) -> None:
        workdir = tmp_path / "runs"
        done = CliRunner().invoke(sweep, ["--space", "digits", "--workdir", str(workdir), "--storage-path", place])
        assert done.exit_code == 2 and f"the place of checkpoints {place} cannot be written" in done.output
        assert "--storage-path" in done.output and not workdir.exists()

    def test_a_workdir_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "runs").write_text("a file")
        for command, arguments in (
            (sweep, ["--space", "digits"]), (experts, ["--space", "digits"]), (report, ["--sweep", "a"]),
            (ui, []), (ui, ["--sweep", "a"]), (sweep, ["--resume", "a"]),
        ):  # fmt: skip
            done = CliRunner().invoke(command, [*arguments, "--workdir", str(tmp_path / "runs")])
            assert done.exit_code == 2 and done.output.startswith("Error: ") and done.output.count("\n") == 1, (
                done.output
            )

    def test_cores_of_a_cluster_are_not_ours_to_count(self) -> None:
        for command in (sweep, experts):
            done = CliRunner().invoke(command, ["--space", "digits", "--address", "10.0.0.1:6379", "--cpus", "2"])
            assert done.exit_code == 2 and "--cpus is for the embedded Ray of --address local" in done.output

    def test_names_are_no_patterns(self, tmp_path: Path) -> None:
        for name in ("a1", "ab"):
            folder = tmp_path / "sweeps" / name
            folder.mkdir(parents=True)
            (folder / "result.json").write_text("{}")
        for name in ("a[1]*", "a*", "[ab]1"):
            done = CliRunner().invoke(ui, ["--workdir", str(tmp_path), "--sweep", name])
            assert done.exit_code == 2 and f"named {name!r}" in done.output, done.output

    def test_a_tilde_that_the_shell_leaves_is_the_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert f" in {tmp_path}/runs" in CliRunner().invoke(sweep, ["--resume", "a", "--workdir=~/runs"]).output
        (tmp_path / "mine.py").write_text("from search_spaces import load\nSPACE = load('digits')\n")
        assert CliRunner().invoke(sweep, ["--space=~/mine.py", "--plan"]).exit_code == 0
        missing = CliRunner().invoke(evaluate, ["--synthetic=~/a.safetensors", "--dataset", "digits"])
        assert f"{tmp_path}/a.safetensors is not a file" in missing.output
