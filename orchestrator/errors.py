"""How a command ends when it cannot go on: one line on stderr and an exit code. DESIGN, Contracts."""

__all__ = ["ClusterError", "NoTrialSucceeded", "Stopped", "UserError"]


class UserError(Exception):
    """The user's input cannot work; the message is one line: the rule, the value and the remedy."""

    exit_code = 2


class ClusterError(Exception):
    """The cluster or a service failed."""

    exit_code = 3


class NoTrialSucceeded(Exception):
    """Every trial failed."""

    exit_code = 4


class Stopped(Exception):
    """Stopped by hand."""

    exit_code = 130
