"""Class names as people have them: with everything that some medium reads as markup, of every script and length."""

HOSTILE = (
    "$0_to_$10", "$\\frac{$", "a|b", "<script>alert(1)</script>", '"double"', "it's", "back\\slash", "two\nlines",
    "x" * 200, "猫と犬", "قطة جميلة", "😀 fun ❤️ 👩‍🚀", "=1+1", "*b* `c` _d_ # [e](f)", "caf\udce9", "\x1b[31mred\x00",
    "[red]bold[/red]", "test", "CON", "Cat", "cat", "../up", "& amp;", "right \u202eleft",
)  # fmt: skip
"""All different; one has a byte that is not UTF-8, as Python reads it from the name of a file."""
