"""EL2N: distance of early networks' predictions from the labels; easy, hard, or best window. docs/coresets/el2n.md.

docs/method.md, "Coresets": E‖p − q‖₂ at an early epoch, averaged over runs.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import EARLY_EPOCHS, EARLY_RUNS, Evidence
from trainables.baselines.coresets.scores import Dynamics
from trainables.baselines.coresets.selection import balanced, highest, highest_of_each_class, lowest_of_each_class
from trainables.errors import ConfigError

__all__ = ["mean_el2n", "select_best", "select_easy", "select_hard", "window"]


def mean_el2n(runs: Iterable[Dynamics]) -> Tensor:
    """Return EL2N after the last epoch of each run, averaged over the runs, float64 [n]."""
    return torch.stack([run.el2n[-1] for run in runs]).double().mean(dim=0)


def window(scores: Tensor, keys: Tensor, count: int, number: int, windows: int) -> Tensor:
    """Return the positions of window `number` of one class's ranking from hard to easy, int64 [count].

    Window b of W starts at rank ⌊b·m / W⌋, which excludes the share β = b / W of hardest images, but no later than
    rank m − `count`, so that it has `count` images.

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
        evidence: Provides the scoring runs.
        ipc: Images per class.
        seed: Seed of the runs and of ties.
        runs: Number of runs that are averaged; docs/method.md, "Coresets" has at least 10.
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
    """Return the window of the ranking with the best validation accuracy, the same in all classes, int64 [ipc·C].

    Of windows with equal accuracy, the easiest is chosen.

    Args:
        evidence: Provides the scoring runs and the validation.
        ipc: Images per class.
        seed: Seed of the runs and of ties.
        runs: Number of runs that are averaged.
        epochs: The epoch after which they score, counted from 1.
        windows: Number of windows: 10 for excluded shares of hardest images β = 0, .1, …, .9.

    Raises:
        ConfigError: `evidence` has no validation, or `windows` is below 1.

    Cost: the runs, and one validation for each distinct window.
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
