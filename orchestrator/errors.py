"""The expected errors of a command, and their exit codes; a command reports one in one line on stderr."""

__all__ = ["ClusterError", "GpuMemoryError", "NoTrialSucceeded", "Stopped", "UserError"]


class UserError(Exception):
    """The user's input is invalid; the message is one line: the rule, the value and the remedy."""

    exit_code = 2


class ClusterError(Exception):
    """The cluster or a service failed."""

    exit_code = 3


class GpuMemoryError(ClusterError):
    """A worker's GPU had too little memory for its work."""


class NoTrialSucceeded(Exception):
    """Every trial failed."""

    exit_code = 4


class Stopped(Exception):
    """The user or a signal stopped the command."""

    exit_code = 130
