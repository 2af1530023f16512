"""Output of commands to a terminal that lacks some characters, such as θ: they are written with those that it has."""

import codecs
import io
import sys
from typing import Any

import click

__all__ = ["Command", "in_ascii", "use_known_characters"]

_ERRORS = "mdatm.in_ascii"
"""Name of the handler of characters that an encoding lacks."""
_ASCII = {
    "α": "alpha", "β": "beta", "γ": "gamma", "ε": "epsilon", "η": "eta", "θ": "theta", "λ": "lambda", "µ": "u",
    "μ": "mu", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "±": "+/-", "−": "-", "–": "-", "—": "-", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "≈": "~", "→": "->", "²": "^2",
    "…": "...", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "█": "#",
}  # fmt: skip
"""What replaces a character where the output's encoding lacks it; any other becomes an escape such as \\xe9."""


class Command(click.Command):
    """A command whose output, also its help, is written with the characters that the terminal has."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command."""
        use_known_characters()
        return super().main(*args, **kwargs)


def in_ascii(text: str) -> str:
    """Return a text in ASCII: with the replacements of `_ASCII`, and escapes for other characters."""
    return "".join(_ASCII.get(character, character) for character in text).encode("ascii", "backslashreplace").decode()


class _AsciiStream(io.TextIOWrapper):
    """A text stream that writes ASCII.

    It names another encoding, because click writes UTF-8 to a stream whose encoding is ASCII.
    """

    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer, encoding="latin-1", line_buffering=True)

    def write(self, text: str, /) -> int:
        super().write(in_ascii(text) if isinstance(text, str) else text)  # click tries bytes, and expects the TypeError
        return len(text)


def use_known_characters() -> None:
    """Make standard output and error replace the characters that their encoding lacks, in place of raising an error."""
    codecs.register_error(_ERRORS, _replace)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, _AsciiStream):
            continue  # a notebook's or a test's own stream takes any text
        if codecs.lookup(stream.encoding).name == "ascii":
            stream.flush()
            setattr(sys, name, _AsciiStream(stream.buffer))
        else:
            stream.reconfigure(errors=_ERRORS)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end
