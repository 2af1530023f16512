"""The registry: its own entries, and what files of users add."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces import Comparison, SpaceError, load, register, registry
from search_spaces.entry import MAKE_SETS, Entry, Kind
from search_spaces.own_entries import OWN
from search_spaces.record import from_record, to_record
from tests.support.extensions import COMPARISON, STUDY, write_extensions
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry as it is when nobody has added anything."""
    monkeypatch.setattr(registry, "_entries", {(entry.kind, entry.name): entry for entry in OWN})
    yield


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def select(evidence, ipc, seed):\n    return None\n")
    return tmp_path


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(SpaceError) as caught:
        register(*args, **kwargs)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestOwn:
    @pytest.mark.parametrize("each", OWN, ids=lambda each: f"{each.kind}-{each.name}")
    def test_every_page_is_there(self, each: Entry) -> None:
        assert (ROOT / each.page).is_file() and each.source is None

    def test_the_order_is_that_of_tables(self) -> None:
        assert registry.compared(*MAKE_SETS) == (
            "random", "el2n_easy", "el2n_hard", "el2n_best", "grand", "forgetting", "k_center", "herding", "moderate",
            "uncertainty", "dynamic_uncertainty", "cad_prune", "rded", "ca2d", "sre2l", "dm", "dc", "m_datm",
        )  # fmt: skip

    def test_labels_are_those_of_sets(self) -> None:
        assert [registry.label(name) for name in ("k_center", "dm", "distribution")] == ["k-centre greedy", "DM", None]

    def test_an_unknown_name_has_the_nearest_and_all(self) -> None:
        with pytest.raises(SpaceError, match=r"unknown dataset cifar11; did you mean cifar10\? Known: digits, cifar10"):
            registry.entry(Kind.DATASET, "cifar11")


class TestRegister:
    def test_a_name_comes_last_of_its_kind_and_is_one_of_the_keys(self, files: Path) -> None:
        made = register("coreset", "mine", label="my own", implementation="mine.py:select")
        assert registry.names(Kind.CORESET)[-1] == "mine" and registry.label("mine") == "my own"
        assert made.source == (files / "mine.py").read_text()
        space = load("digits").override({"baselines": "mine,k_center"})
        assert space.baselines == ("k_center", "mine") and space.extensions == (made,)
        assert load("digits").extensions == ()

    def test_the_same_twice_is_one_and_another_is_refused(self, files: Path) -> None:
        given = {"label": "my own", "implementation": "mine.py:select"}
        assert register("coreset", "mine", **given) == register("coreset", "mine", **given)
        assert "the name mine is that of a coreset already (my own); choose another" in refusal(
            "coreset", "mine", label="other", implementation="mine.py:select"
        )

    @pytest.mark.parametrize(
        ("kind", "name", "said"),
        [
            ("coreset", "herding", "the name herding is that of a coreset already (herding)"),
            ("coreset", "dm", "the name dm is that of a method already (DM)"),
            ("method", "rded", "the name rded is that of a baseline already (RDED)"),
            ("metric", "mine", "kind of an entry must be one of coreset, baseline, method, dataset, network"),
            ("coreset", "a,b", "name of a coreset must be letters, digits"),
            ("coreset", "none", "and not all or none: 'none'"),
        ],
    )
    def test_names_that_cannot_be(self, files: Path, kind: str, name: str, said: str) -> None:
        assert said in refusal(kind, name, label="l", implementation="mine.py:select")

    @pytest.mark.parametrize(
        ("implementation", "said"),
        [
            ("mine.py", "must be file.py:attribute, not 'mine.py'"),
            ("package.module:select", "must be file.py:attribute"),
            ("other.py:select", "other.py cannot be read"),
            ("mine.py:selct", "mine.py defines no selct; did you mean select?"),
            ("broken.py:select", "broken.py:1: "),
        ],
    )
    def test_files_that_cannot_be(self, files: Path, implementation: str, said: str) -> None:
        (files / "broken.py").write_text("def select(:\n")
        assert said in refusal("coreset", "mine", label="l", implementation=implementation)

    def test_a_network_of_ones_own_has_neither_compiled_steps_nor_sre2l(self, files: Path) -> None:
        register("network", "mine", label="l", implementation="mine.py:select")
        for changed in ({"compile": "on"}, {"precision": "bf16"}, {"baselines": "sre2l"}):
            with pytest.raises(SpaceError, match="convnet"):
                load("digits").override({"network": "mine", **changed})


class TestSpaces:
    def test_a_spaces_file_finds_files_beside_it(self, tmp_path: Path) -> None:
        space = load(write_extensions(tmp_path / "folder", COMPARISON))
        assert isinstance(space, Comparison)
        assert space.methods == ("nearest_mean", "halved") and space.distilled == ("halved",)
        assert [entry.name for entry in space.extensions] == ["nearest_mean", "halved", "stripes", "perceptron"]

    @pytest.mark.parametrize("again", [lambda space: pickle.dumps(space), lambda space: to_record(space)])
    def test_a_space_brings_its_entries_to_where_none_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: object
    ) -> None:
        space = load(write_extensions(tmp_path / "folder", STUDY))
        stored = again(space)  # type: ignore[operator]
        monkeypatch.setattr(registry, "_entries", {(entry.kind, entry.name): entry for entry in OWN})
        read = from_record(stored) if isinstance(stored, dict) else pickle.loads(stored)
        assert read == space
        assert registry.label("nearest_mean") == "nearest the mean"

    def test_a_comparison_names_a_variant_as_the_sets_of_its_method(self, tmp_path: Path) -> None:
        path = write_extensions(tmp_path / "folder", COMPARISON.replace('variants={"halved"', 'variants={"half"'))
        with pytest.raises(SpaceError, match=r"halved where method is halved, not 'half'; did you mean halved\?"):
            load(path)

    def test_a_comparison_has_a_variant_for_each_distilled_method(self, tmp_path: Path) -> None:
        path = write_extensions(tmp_path / "folder", COMPARISON.replace("nearest_mean,halved", "nearest_mean,dm"))
        with pytest.raises(SpaceError, match="methods has dm, and mine has no such variant; add it or leave it out"):
            load(path)
