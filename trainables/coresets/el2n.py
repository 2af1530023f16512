"""EL2N: how far early networks' answers are from the labels; easy, hard, or the best window. docs/coresets/el2n.md.

METHOD §6: E‖p − q‖₂ at an early epoch, averaged over runs.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from trainables.coresets.balance import balanced, highest_of_each_class, lowest_of_each_class
from trainables.coresets.evidence import EARLY_EPOCHS, EARLY_RUNS, Evidence
from trainables.coresets.ranking import highest
from trainables.errors import ConfigError
from trainables.scores import Dynamics

__all__ = ["mean_el2n", "select_best", "select_easy", "select_hard", "window"]


def mean_el2n(runs: Iterable[Dynamics]) -> Tensor:
    """Return EL2N after the last epoch of each run, averaged over the runs, float64 [n]."""
    return torch.stack([run.el2n[-1] for run in runs]).double().mean(dim=0)


def window(scores: Tensor, keys: Tensor, count: int, number: int, windows: int) -> Tensor:
    """Return the positions of window `number` of one class's ranking from hard to easy, int64 [count].

    Window b of W starts at rank ⌊b·m / W⌋, which leaves out the share β = b / W of hardest images, and at the latest
    where `count` images are left.

    Args:
        scores: EL2N, float [m].
        keys: Decide ties, int64 [m].
        count: Images in the window.
        number: b, from 0, the hardest, to `windows` − 1.
        windows: W.
    """
    start = min(number * len(scores) // windows, len(scores) - count)
    return highest(scores, keys, start + count)[start:]


def select_easy(
    evidence: Evidence, ipc: int, seed: int, *, runs: int = EARLY_RUNS, epochs: int = EARLY_EPOCHS
) -> Tensor:
    """Return each class's training rows of lowest EL2N, int64 [ipc·C] in default order.

    Args:
        evidence: Has the scoring runs.
        ipc: Images per class.
        seed: Names the runs, and decides ties.
        runs: Runs that are averaged; METHOD §6 has at least 10.
        epochs: The epoch after which they score, counted from 1.
    """
    scores = mean_el2n(evidence.early_runs(seed, runs, epochs))
    return lowest_of_each_class(evidence, ipc, scores, evidence.keys(seed, "el2n"))


def select_hard(
    evidence: Evidence, ipc: int, seed: int, *, runs: int = EARLY_RUNS, epochs: int = EARLY_EPOCHS
) -> Tensor:
    """Return each class's training rows of highest EL2N, int64 [ipc·C] in default order; arguments as `select_easy`."""
    scores = mean_el2n(evidence.early_runs(seed, runs, epochs))
    return highest_of_each_class(evidence, ipc, scores, evidence.keys(seed, "el2n"))


def select_best(
    evidence: Evidence,
    ipc: int,
    seed: int,
    *,
    runs: int = EARLY_RUNS,
    epochs: int = EARLY_EPOCHS,
    windows: int = 10,
) -> Tensor:
    """Return the window of each class's ranking that validates best, the same in all classes, int64 [ipc·C].

    Of equally good ones the easiest. Arguments as `select_easy`, and:

    Args:
        evidence: Also has the validation.
        ipc: Images per class.
        seed: Names the runs, and decides ties.
        runs: Runs that are averaged.
        epochs: The epoch after which they score.
        windows: How many windows there are: 10 for shares of hardest images left out of β = 0, .1, …, .9.

    Raises:
        ConfigError: `evidence` has no validation, or there is no window.

    Cost: beside the runs, one validation for each window that differs from the others.
    """
    if evidence.validate is None:
        raise ConfigError("el2n_best chooses its window by validation accuracy, and no validation is given: give one")
    if windows < 1:
        raise ConfigError(f"windows must be at least 1, not {windows}")
    scores, keys = mean_el2n(evidence.early_runs(seed, runs, epochs)), evidence.keys(seed, "el2n")
    candidates: list[Tensor] = []
    for number in reversed(range(windows)):  # from easy to hard
        rows = _window_of_each_class(evidence, ipc, scores, keys, number, windows)
        if not any(torch.equal(rows, other) for other in candidates):
            candidates.append(rows)
    accuracies = [evidence.validate(rows) for rows in candidates]
    return candidates[accuracies.index(max(accuracies))]


def _window_of_each_class(
    evidence: Evidence, ipc: int, scores: Tensor, keys: Tensor, number: int, windows: int
) -> Tensor:
    return balanced(evidence, ipc, lambda rows: window(scores[rows], keys[rows], ipc, number, windows))
