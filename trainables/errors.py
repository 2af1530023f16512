"""Errors in the files and settings that the user supplies."""

__all__ = ["CheckpointError", "ConfigError", "DatasetError", "ExpertFileError", "InputError", "SyntheticSetError"]


class InputError(ValueError):
    """Invalid input; the message is one line: the rule, the value and the remedy."""


class CheckpointError(InputError):
    """A trial's checkpoint cannot be read, or is not a checkpoint."""


class ConfigError(InputError):
    """A setting or a combination of settings is invalid."""


class DatasetError(InputError):
    """A dataset is missing, incomplete, damaged or not the expected one."""


class ExpertFileError(InputError):
    """An expert's file is missing, truncated or not the one that its manifest describes."""


class SyntheticSetError(InputError):
    """A synthetic set's file cannot be read, or is not a synthetic set."""
