"""What can be wrong with the files and settings that the numerics are given."""

__all__ = ["CheckpointError", "ConfigError", "DatasetError", "ExpertFileError", "InputError", "SyntheticSetError"]


class InputError(ValueError):
    """Something the user gave cannot work; the message is one line: the rule, the value and the remedy."""


class CheckpointError(InputError):
    """A trial's checkpoint that cannot be read as what it is said to be."""


class ConfigError(InputError):
    """A setting, or a combination of settings, that cannot work."""


class DatasetError(InputError):
    """A dataset that is missing, incomplete or not what it says it is."""


class ExpertFileError(InputError):
    """An expert file that is missing, truncated or not the one its manifest describes."""


class SyntheticSetError(InputError):
    """A synthetic set's file that cannot be read as what it is said to be."""
