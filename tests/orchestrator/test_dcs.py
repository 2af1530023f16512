"""DCS: the correlation corrected for size against constructed answers and by simulation, the command's words, a run."""

import json
import math
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestrator.dcs import main
from orchestrator.reporting.correlation import reading
from orchestrator.results.correlation import MeasuredSet, corrected_correlation, dcs_records
from orchestrator.results.statistics import ALPHA
from tests.support.processes import run
from trainables.data.datasets import ImageDataset, load, prepare
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.data.synthetic import SyntheticSet, write_synthetic

SIMULATIONS = 400
SLACK = 4 * math.sqrt(ALPHA * (1 - ALPHA) / SIMULATIONS)


def measured(*values: tuple[int, float, float]) -> list[MeasuredSet]:
    """Sets of (ipc, loss, cross-entropy)."""
    return [
        MeasuredSet(name=str(number), ipc=ipc, losses={"gradient": loss}, test_losses=[test], accuracies=[0.5])
        for number, (ipc, loss, test) in enumerate(values)
    ]


def scores(sets: list[MeasuredSet]) -> dict[str, dict[str, Any]]:
    """Records by size, and of all sets as `corrected` and `not`."""
    words = {True: "corrected", False: "not"}
    return {words.get(each["corrected"], str(each["ipc"])): each for each in dcs_records(sets, ["gradient"])}


def by_size(random: np.random.Generator, sizes: tuple[int, ...], *, sets: int, sign: int = 0) -> list[MeasuredSet]:
    """Sets whose loss and cross-entropy both fall with size; within one by chance, or in the same or reverse order."""
    values = []
    for ipc in sizes:
        losses, tests = np.sort(random.normal(0, 1, sets)), random.normal(0, 1, sets)
        tests = sign * np.sort(sign * tests) if sign else tests
        values += [(ipc, loss - 100 * ipc, test - 100 * ipc) for loss, test in zip(losses, tests, strict=True)]
    return measured(*values)


class TestCorrected:
    def test_size_alone_explains_everything(self) -> None:
        """Uncorrected the correlation is strong and certain; at equal size chance alone is left."""
        found = scores(by_size(np.random.default_rng(1), (1, 5, 10), sets=12))
        assert found["not"]["rho"] > 0.85 and found["not"]["p"] < 0.001
        assert abs(found["corrected"]["rho"]) < 0.3 and found["corrected"]["p"] > ALPHA

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_perfect_order_within_sizes(self, sign: int) -> None:
        found = scores(by_size(np.random.default_rng(2), (1, 5), sets=8, sign=sign))
        for key in ("1", "5", "corrected"):
            assert found[key]["rho"] == pytest.approx(sign) and found[key]["p"] < 0.001
        assert found["not"]["rho"] > 0.5  # size goes the other way where the sign is −1, and wins

    def test_a_size_that_hides_an_order(self) -> None:
        """Larger sets with larger losses and lower cross-entropy: uncorrected negative, at equal size perfect."""
        values = [(ipc, 10 * ipc + place, place - 10 * ipc) for ipc in (1, 5) for place in range(6)]
        found = scores(measured(*values))
        assert found["not"]["rho"] < 0 and found["corrected"]["rho"] == pytest.approx(1)

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(
            st.integers(2, 9).flatmap(
                lambda n: st.tuples(*(st.lists(st.integers(0, 6), min_size=n, max_size=n) for _ in range(2)))
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_it_is_the_weighted_mean_of_the_sizes_own(self, groups: list[tuple[list[float], list[float]]]) -> None:
        """SciPy's ρ of each group, ties and all, weighted by n − 1; groups that are constant say nothing."""
        telling = [(x, y) for x, y in groups if len(set(x)) > 1 and len(set(y)) > 1]
        weights = [len(x) - 1 for x, _ in telling]
        found = corrected_correlation(groups)
        if sum(weights) < 5:
            assert found is None
            return
        assert found is not None
        own = [stats.spearmanr(x, y).statistic for x, y in telling]
        assert found[0] == pytest.approx(np.average(own, weights=weights), abs=1e-12)
        assert 2e-4 <= found[1] <= 1

    @settings(max_examples=20, deadline=None)
    @given(st.data())
    def test_what_only_differs_between_sizes_does_not_count(self, data: st.DataObject) -> None:
        groups = [([3.0, 1.0, 2.0, 5.0], [1.0, 2.0, 3.0, 4.0]), ([1.0, 2.0, 4.0], [2.0, 1.0, 9.0])]
        shifted = [
            tuple([value * 2**scale + shift for value in side] for side in group)
            for group in groups
            for scale, shift in [data.draw(st.tuples(st.integers(-3, 3), st.integers(-1000, 1000)))]
        ]
        assert corrected_correlation(shifted) == corrected_correlation(groups)  # type: ignore[arg-type]

    def test_of_one_size_it_is_that_size_s(self) -> None:
        random = np.random.default_rng(3)
        x, y = random.normal(0, 1, (2, 15))
        found = corrected_correlation([(x, y)])
        (score,) = dcs_records(measured(*((2, *pair) for pair in zip(x, y + x, strict=True))), ["gradient"])
        again = corrected_correlation([(x, y + x)])
        assert found is not None and again is not None
        assert found[0] == pytest.approx(stats.spearmanr(x, y).statistic)
        assert again[0] == pytest.approx(score["rho"]) and again[1] == pytest.approx(score["p"], abs=0.02)

    def test_p_is_that_of_all_orders_within_groups(self) -> None:
        """Three groups of three: all 6³ orders, by hand."""
        groups = [
            ([1.0, 2.0, 3.0], [2.0, 1.0, 3.0]),
            ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
            ([3.0, 1.0, 2.0], [3.0, 1.0, 2.0]),
        ]
        found = corrected_correlation(groups)
        own = [[float(np.corrcoef(order, y)[0, 1]) for order in permutations(x)] for x, y in groups]
        seen = sum(float(np.corrcoef(x, y)[0, 1]) for x, y in groups)
        sums = [sum(each) for each in product(*own)]
        expected = 2 * np.mean([total >= seen - 1e-9 for total in sums])
        assert found is not None and found[0] == pytest.approx(seen / 3)
        assert found[1] == pytest.approx(expected, abs=4 * math.sqrt(2 * expected / 9999))

    def test_false_alarms(self) -> None:
        """Sizes explain everything, groups are small and unequal: a test at 5 % is wrong in 5 % of the cases."""
        random = np.random.default_rng(4)
        alarms = 0
        for _ in range(SIMULATIONS):
            groups = [tuple(random.normal(shift, 1, (2, n))) for n, shift in ((3, 0), (4, 50), (9, 100))]
            found = corrected_correlation(groups)
            assert found is not None
            alarms += found[1] <= ALPHA
        assert alarms / SIMULATIONS <= ALPHA + SLACK


class TestRecords:
    def test_too_few_sets_of_a_size_have_no_number(self) -> None:
        """Five are too few alone; two sizes of five say as much as a size of nine."""
        few = [(ipc, place, place) for ipc in (1, 5) for place in range(5)]
        found = scores(measured(*few))
        assert [(found[ipc]["rho"], found[ipc]["p"], found[ipc]["n"]) for ipc in ("1", "5")] == [(None, None, 5)] * 2
        assert found["corrected"]["rho"] == pytest.approx(1)
        alone = dcs_records(measured(*few[:5]), ["gradient"])
        assert len(alone) == 1
        assert reading("gradient", alone, "test") == "gradient: no score, too few: 6 of a size are needed."

    def test_sets_that_are_all_alike_have_no_number(self) -> None:
        records = dcs_records(measured(*((1, 0.5, place) for place in range(8))), ["gradient"])
        assert reading("gradient", records, "test") == "gradient: no score, none: all alike."

    def test_one_size_has_no_row_for_all(self) -> None:
        assert list(scores(measured(*((3, place, place) for place in range(6))))) == ["3"]

    def test_what_is_not_finite_is_left_out_and_counted(self) -> None:
        wild = [(1, math.inf, 0.0), (1, 1.0, math.nan), (5, math.nan, 1.0)]
        values = [(ipc, place, place) for ipc in (1, 5) for place in range(6)]
        found = scores(measured(*values, *wild))
        assert {key: (each["n"], each["left_out"]) for key, each in found.items()} == {
            "1": (6, 2), "5": (6, 1), "corrected": (12, 3), "not": (12, 3)
        }  # fmt: skip
        assert found["1"]["rho"] == pytest.approx(1) and found["1"]["loss_mean"] == 2.5
        json.dumps(dcs_records(measured(*wild), ["gradient"]), allow_nan=False)

    def test_a_set_that_is_alone_in_its_size_is_not_counted_as_corrected(self) -> None:
        found = scores(measured(*((1, place, -place) for place in range(6)), (5, 9, 9)))
        assert (found["corrected"]["n"], found["not"]["n"], found["5"]["n"]) == (6, 7, 1)
        assert found["corrected"]["rho"] == pytest.approx(-1)

    def test_readings(self) -> None:
        random = np.random.default_rng(5)
        said = {
            sign: reading("gradient", dcs_records(by_size(random, (1, 5), sets=10, sign=sign), ["gradient"]), "test")
            for sign in (1, -1, 0)
        }
        assert said[1].startswith(
            "gradient: among sets of equal size a lower loss goes with a lower test loss (ρ = +1.00"
        )
        assert "a lower loss goes with a higher test loss, the opposite" in said[-1] and "ρ = -1.00" in said[-1]
        assert "a lower loss says nothing of the test loss that chance would not" in said[0] and "n = 20" in said[0]


def refused(*arguments: object, words: tuple[str, ...]) -> None:
    """One line with these words, exit code 2; nothing was begun."""
    found = CliRunner().invoke(main, ["--space", "digits", *map(str, arguments)])
    assert found.exit_code == 2, found.output
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return load(prepare("digits", cache=tmp_path_factory.mktemp("prepared"), validation_share=0.25))


def store(path: Path, digits: ImageDataset, ipc: int, seed: int, **changed: Any) -> Path:
    fields: dict[str, Any] = {
        "images": real_images(digits, ipc, seed), "labels": default_order_labels(ipc, 10), "alpha": 0.01,
        "dataset": "digits", "class_names": digits.class_names, "mean": digits.mean, "std": digits.std, "ipc": ipc,
        "method": "by hand", "config": {"validation_share": 0.25}, "provenance": {},
    }  # fmt: skip
    write_synthetic(path, SyntheticSet(**{**fields, **changed}))
    return path


class TestRefused:
    def test_options_that_ask_for_nothing(self, tmp_path: Path) -> None:
        refused("--workdir", tmp_path, words=("--synthetic", "--subsets"))
        path = tmp_path / "set.safetensors"
        path.touch()
        refused("--synthetic", path, "--ipc", "1,5", words=("--ipc", "--subsets"))
        refused("--synthetic", f"{path},{path}", words=("set.safetensors", "twice"))
        drop = ("--experts", "--losses")
        refused("--subsets", 8, "--losses", "gradient", "--experts", 2, "--workdir", tmp_path, words=drop)
        assert sorted(tmp_path.iterdir()) == [path]

    def test_losses_that_are_none(self, tmp_path: Path) -> None:
        names = ("trajectory, distribution, gradient", "'tesla'")
        refused("--subsets", 8, "--losses", "trajectory,tesla", "--workdir", tmp_path, words=names)

    def test_settings_that_a_loss_cannot_have(self, tmp_path: Path) -> None:
        asked = ("--subsets", 8, "--set", "precision=bf16", "--workdir", tmp_path)
        refused(*asked, words=("precision must be fp32 or tf32", "distribution"))

    def test_places_that_are_not_there(self, tmp_path: Path) -> None:
        refused("--synthetic", tmp_path / "none.safetensors", words=("none.safetensors is not a file",))
        refused("--subsets", 8, "--json", tmp_path / "no" / "figures.json", words=("--json", "does not exist; create"))
        refused("--subsets", 8, "--address", "ray://head:10001", words=("ray://head:10001", "auto"))

    def test_files_that_are_not_sets_of_the_space(self, tmp_path: Path, digits: ImageDataset) -> None:
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(b"no tensors")
        refused("--synthetic", bad, "--workdir", tmp_path, words=("bad.safetensors cannot be read",))
        other = store(tmp_path / "other.safetensors", digits, 1, 0, dataset="cifar10")
        refused("--synthetic", other, "--workdir", tmp_path, words=("cifar10", "digits", "--space"))
        share = store(tmp_path / "share.safetensors", digits, 1, 0, config={"validation_share": 0.1})
        # Only where the validation split is what tests does it matter which images it took.
        words = ("validation_share = 0.1", "the space has 0.25")
        refused("--synthetic", share, "--split", "validation", "--workdir", tmp_path, words=words)
        white = {"config": {"zca": True}, "displayable": digits.displayable(real_images(digits, 1, 0))}
        whitened = store(tmp_path / "white.safetensors", digits, 1, 0, **white)
        refused("--synthetic", whitened, "--workdir", tmp_path, words=("zca = True", "--set zca=True"))
        turned = store(tmp_path / "turned.safetensors", digits, 1, 0, class_names=(*"1023456789",))
        refused("--synthetic", turned, "--workdir", tmp_path, words=("other classes", "'1' where it has '0'"))

    def test_more_images_than_a_class_has(self, tmp_path: Path) -> None:
        refused("--subsets", 2, "--ipc", "1,1000", "--workdir", tmp_path, words=("fewer than ipc = 1000", "lower ipc"))


@pytest.mark.slow
def test_the_command_measures_stored_sets_and_random_subsets(tmp_path: Path, digits: ImageDataset) -> None:
    stored = [store(tmp_path / f"{number}.safetensors", digits, 2, number) for number in range(2)]
    asked: tuple[object, ...] = (
        "--space",
        "digits",
        "--set",
        "protocol_epochs=20",
        "--set",
        "batch_real=16",
        "--networks",
        1,
    )
    asked += ("--set", "net_depth=1", "--set", "net_width=8", "--experts", 2, "--workdir", tmp_path)

    def dcs(*more: object) -> tuple[str, dict[str, Any]]:
        done = run("orchestrator.dcs", *asked, *more, "--json", tmp_path / "figures.json")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, json.loads((tmp_path / "figures.json").read_text())

    said, told = dcs("--synthetic", f"{stored[0]},{stored[1]}", "--subsets", 6, "--ipc", "1,2", "--quiet")
    assert "all, corrected for size" in said and "gradient: among sets of equal size" in said
    losses = ["trajectory", "distribution", "gradient"]
    assert [(each["loss"], each["ipc"], each["corrected"], each["n"]) for each in told["records"]] == [
        (loss, ipc, corrected, n)
        for loss in losses
        for ipc, corrected, n in ((1, None, 6), (2, None, 8), ("all", True, 14), ("all", False, 14))
    ]
    sets = told["sets"]
    names = [(str(stored[0]), 2), (str(stored[1]), 2), ("random real, 0", 1)]
    assert [(each["name"], each["ipc"]) for each in sets[:3]] == names
    for loss in losses:
        assert len({each["losses"][loss] for each in sets}) == len(sets) == 14
        pairs = [(each["losses"][loss], each["test_loss"]) for each in sets if each["ipc"] == 2]
        of_two = next(each for each in told["records"] if (each["loss"], each["ipc"]) == (loss, 2))
        assert of_two["rho"] == pytest.approx(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    assert all(0 <= each["accuracy"] <= 1 and each["test_loss"] > 0 for each in sets)

    # The same set in other company: the same bits.
    _, alone = dcs("--losses", "trajectory", "--subsets", 1, "--ipc", 2, "--concurrent", 1)
    (own,) = (each for each in sets if (each["name"], each["ipc"]) == ("random real, 0", 2))
    assert alone["sets"] == [{**own, "losses": {"trajectory": own["losses"]["trajectory"]}}]
    assert [(each["rho"], each["n"]) for each in alone["records"]] == [(None, 1)]
