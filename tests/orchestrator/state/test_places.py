"""Names of sweeps: what a folder, an option's value and a list joined by commas can hold."""

import pytest

from orchestrator.errors import UserError
from orchestrator.state.places import check_name


@pytest.mark.parametrize("name", ["a", "my sweep", "[red]", 'o\'neil "2"', "größe-α", "x" * 200, "a.b_c~d", "$(x)"])
def test_a_name_may_hold_what_a_folder_may(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", ".hidden", "-rf", "--help", "a/b", "/etc", "a,b", "a?", "a\nb", "a\tb", "a\x1b[1m", " a", "a ",
     "x" * 201, "ü" * 101, "x" * 300, "a\udc80"],
)  # fmt: skip
def test_any_other_is_refused_in_a_short_line(name: str) -> None:
    with pytest.raises(UserError, match=r"a sweep's name is one line of 1 to 200 bytes .*change --name") as refused:
        check_name(name)
    assert len(str(refused.value).splitlines()) == 1 and len(str(refused.value)) < 500
    assert str(refused.value).isprintable()
