"""A comparison's set and its name."""

import pytest

from orchestrator.results.entries import ComparedSet


@pytest.mark.parametrize("compared", [ComparedSet("random", 1), ComparedSet("my-own_method", 50)])
def test_the_stored_name_says_method_and_size(compared: ComparedSet) -> None:
    assert ComparedSet.parse(compared.name) == compared


def test_the_name_is_what_files_and_progress_have() -> None:
    assert ComparedSet("k_center", 10).name == "k_center-10"
