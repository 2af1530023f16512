"""Looking at a sweep's folder while a driver may work on it: no lock is taken from the driver, nothing is pushed."""

from orchestrator.state.lock import exclusive_lock, is_held
from orchestrator.state.mirror import Mirror
from orchestrator.state.places import SweepPlaces

__all__ = ["fetch"]


def fetch(places: SweepPlaces) -> None:
    """Bring a sweep's folder on this machine up to date with the workdir's URI; do nothing for a workdir on a disk.

    If a process here works on the sweep, its folder is newer than the URI, and is left alone.

    Raises:
        ClusterError: The URI does not answer.
        UserError: The copy at the URI has another format version.
    """
    if places.workdir.uri is not None and not is_held(places):
        with exclusive_lock(places):
            Mirror(places.workdir, places.name).pull()
