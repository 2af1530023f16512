"""The stages of a headline run within their shares of the budget: experts, distillation, the test.

They use a sweep's own parts: `ExpertTrainer` and `TrajectoryStore`, distiller and validation of a `Workbench`,
`evaluate_networks`. This module decides when they start and end.
"""

import math
import statistics
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from benchmarks.budget import EXPERT_SHARE, FINAL_SHARE, Clock, Plan
from benchmarks.problem import Problem
from trainables.config.protocol import Protocol
from trainables.data.datasets import load
from trainables.data.labels import default_order_labels
from trainables.distillation.methods import TRAJECTORY
from trainables.distillation.trajectory import Distiller
from trainables.errors import ConfigError
from trainables.evaluation.training import evaluate_networks
from trainables.experts.store import TrajectoryStore
from trainables.experts.training import DivergedExpert, ExpertTrainer, experts_at_once, fits_gpu
from trainables.seeding import seed_of
from trainables.workers.workbench import TrialWork, Workbench

__all__ = ["distil", "final_test", "start_distillation", "train_experts", "workbench_of"]

PATIENCE, GROWTH = 4, 0.3
"""Time to the next validation: PATIENCE times the last one's, or GROWTH times the distillation so far, if longer."""


def train_experts(problem: Problem, wanted: int, clock: Clock) -> dict[str, Any]:
    """Train as many experts as their share of the budget allows, one at least; return a record of the stage.

    The record's `count` experts, from number 0 on, can be matched. Complete experts of earlier runs in the store are
    reused at no cost.

    Raises:
        ConfigError: One expert takes more time than experts and distillation have together, or diverges, or another
            process holds the store's lock.
    """
    began, horizon, store = clock.spent, problem.horizon, problem.store
    deadline = began + EXPERT_SHARE * (clock.budget - began)
    how: dict[str, Any] = {"at_once": 0}
    missing: list[int] = []
    store.folder.mkdir(parents=True, exist_ok=True)
    with _alone(store):
        store.recover(range(wanted))
        absent = {*store.short(range(wanted), horizon), *store.corrupt(range(wanted))}
        if absent:
            how, missing = _train_absent(problem, absent, wanted, clock, deadline)
    usable = min(missing, default=wanted)
    return {
        "wanted": wanted,
        "found": len(set(range(usable)) - absent),
        "epochs": horizon,
        "seconds": clock.spent - began,
        **how,
        "count": usable,
    }


@contextmanager
def _alone(store: TrajectoryStore) -> Iterator[None]:
    """Hold a store's lock.

    Raises:
        ConfigError: Another process holds it.
    """
    try:
        lock = FileLock(store.lock_path).acquire(timeout=0)
    except Timeout as error:
        message = f"another process trains experts in {store.folder}; wait for it or take another --workdir"
        raise ConfigError(message) from error
    with lock:
        yield


def _train_absent(
    problem: Problem, absent: Collection[int], wanted: int, clock: Clock, deadline: float
) -> tuple[dict[str, Any], list[int]]:
    """Train absent experts, lower numbers first, until the deadline; return facts, and the experts still missing."""
    trainer = _trainer(problem)
    at_once = experts_at_once(trainer, 1.0, problem.file.parent)
    steps = math.ceil(len(problem.dataset.split("train")) / problem.setting.recipe.expert_batch_size)
    expert_seconds = trainer.seconds_per_step(at_once) * steps * problem.horizon
    missing, usable = sorted(absent), 0 not in absent
    if not usable:
        _check_affordable(expert_seconds, problem.horizon, clock)
    while missing:
        fitting = int((deadline - clock.spent) / expert_seconds)
        if fitting < 1 and usable:
            break
        size = max(1, min(at_once, fitting))
        group, missing, usable = missing[:size], missing[size:], True
        began = clock.spent
        _train_group(trainer, problem.store, group, problem.horizon)
        expert_seconds = (clock.spent - began) / len(group)
        print(f"{clock.spent:8,.1f} s  experts: {wanted - len(missing)}, {expert_seconds:.1f} s each", flush=True)
    return {"at_once": at_once, "resident_on_gpu": trainer.resident}, missing


def _trainer(problem: Problem) -> ExpertTrainer:
    return ExpertTrainer(
        dataset=problem.dataset,
        network=problem.network,
        recipe=problem.setting.recipe,
        augmentation=problem.augmentation,
        seed=problem.seed,
        device=problem.device,
        resident=problem.device.type == "cuda" and fits_gpu(problem.dataset, 1.0),
    )


def _check_affordable(expert_seconds: float, horizon: int, clock: Clock) -> None:
    """Check that the budget has time for one expert beside the test.

    Raises:
        ConfigError: It has not.
    """
    most = clock.left - FINAL_SHARE * clock.budget
    if expert_seconds > most:
        raise ConfigError(
            f"one expert of {horizon} epochs would take about {expert_seconds:,.0f} s, of a budget of "
            f"{clock.budget:,.0f} s that leaves {max(most, 0):,.0f} s; raise --budget-s, or lower --width"
        )


def _train_group(trainer: ExpertTrainer, store: TrajectoryStore, group: Sequence[int], horizon: int) -> None:
    """Train experts side by side from their start, and write them to the store.

    Raises:
        ConfigError: An expert diverges.
    """
    states = [trainer.start(expert) for expert in group]
    snapshots = [[state.theta.cpu()] for state in states]
    losses: list[list[float]] = [[] for _ in states]
    for _ in range(horizon):
        later = trainer.train_epoch_together(group, states)
        states = []
        for place, state in enumerate(later):
            if isinstance(state, DivergedExpert):
                raise ConfigError(str(state))
            states.append(state)
            snapshots[place].append(state.theta.cpu())
            losses[place].append(state.loss)
    momentum = trainer.recipe.expert_momentum > 0
    store.record(
        {
            expert: store.write(expert, snapshots[place], losses[place], states[place].velocity if momentum else None)
            for place, expert in enumerate(group)
        }
    )


def workbench_of(problem: Problem, experts: int, validation_epochs: int) -> Workbench:
    """Return the workbench that distils with `experts` experts and validates with one network."""
    return Workbench(
        TrialWork(
            dataset=problem.file,
            store=problem.store,
            methods=[TRAJECTORY],
            checkpoints="",  # a run is not resumed
            settings=asdict(problem.config),
            experts=experts,
            epochs=problem.horizon,
            protocol=Protocol.challenge(validation_epochs),
            validation_networks=1,
            validation_every_iterations=problem.config.iterations,  # unused: `distil` validates by the clock
            seed=problem.seed,
            device=problem.device.type,
            compiled=problem.config.compile == "on",
            memory_budget_bytes=None,
            device_share=1.0,
        )
    )


def start_distillation(problem: Problem, bench: Workbench) -> Distiller:
    """Return the distillation before its first iteration."""
    return bench.trajectory_matching({})


def distil(
    problem: Problem, bench: Workbench, distiller: Distiller, clock: Clock, deadline: float
) -> Iterator[dict[str, Any]]:
    """Distil until all iterations are done or the deadline passes, one iteration at least; yield the curve's points.

    The first point is of the initial images, the last of the result.
    """
    config, losses = distiller.config, list[float]()
    distilling, due = 0.0, 0.0
    while True:
        late = distiller.iteration > 0 and clock.spent >= deadline
        last = late or distiller.iteration >= config.iterations
        if last or clock.spent >= due:
            began = clock.spent
            accuracy = bench.validate(distiller.result_images)
            yield {
                "iteration": distiller.iteration,
                "seconds": clock.spent,
                "distillation_seconds": distilling,
                "validation_accuracy": accuracy,
                "matching_loss": statistics.mean(losses) if losses else None,
                "alpha": distiller.alpha,
                "skipped": distiller.skipped,
                "not_finite": distiller.not_finite,
                "image_displacement": distiller.displacement,
            }
            losses.clear()
            due = clock.spent + max(PATIENCE * (clock.spent - began), GROWTH * distilling)
        if last:
            return
        began = clock.spent
        done = distiller.step()
        distilling += clock.spent - began
        if done.finite:
            losses.append(done.loss)


def final_test(problem: Problem, images: Tensor, networks: int, plan: Plan, clock: Clock) -> dict[str, Any]:
    """Train fresh networks on the set as long as the budget allows, test every one once, and return a record."""
    tested = load(problem.file, ("test",))
    epochs = plan.test_epochs(clock, len(tested.split("test")))
    print(f"{clock.spent:8,.1f} s  testing: {networks} networks, {epochs} epochs", flush=True)
    metrics = evaluate_networks(
        problem.network,
        tested,
        "test",
        images.__getitem__,
        default_order_labels(problem.config.ipc, tested.classes).to(problem.device),
        protocol=Protocol.challenge(epochs),
        augmentation=problem.evaluator,
        seeds=[seed_of(problem.seed, "test", number) for number in range(networks)],
        at_once=networks if problem.device.type == "cuda" else 1,
    )
    values = [network.accuracy for network in metrics]
    return {
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "values": values,
        "epochs": epochs,
    }
