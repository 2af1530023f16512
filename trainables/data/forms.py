"""The forms in which a synthetic set can be exported; `export` writes them. This module imports no heavy package."""

from trainables.errors import ConfigError

__all__ = ["FORMS", "check_form"]

FORMS = FOLDER, PARQUET, HUB, NPZ, PT = ("folder", "parquet", "hub", "npz", "pt")


def check_form(form: str, *, as_floats: bool) -> None:
    """Refuse a form that is unknown, or that cannot hold what is asked of it.

    Raises:
        ConfigError: Says which forms there are.
    """
    if form not in FORMS:
        raise ConfigError(f"the form of an export is one of {', '.join(FORMS)}, not {form!r}; change --to")
    if form == FOLDER and as_floats:
        raise ConfigError("--float keeps floats, and a folder of PNG files has none; choose parquet, hub, npz or pt")
