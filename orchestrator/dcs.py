"""Does the loss that a method minimises tell how good a set is? The distillation correlation score. METHOD §6, DCS.

python -m orchestrator.dcs --space digits --subsets 20 --ipc 1 5
python -m orchestrator.dcs --space digits --synthetic runs/sweeps/*/synthetic.safetensors
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.table import Table
from scipy import stats

from orchestrator.address import check_answers
from orchestrator.cli import expert_options, load_space, one_line_errors, space_option
from orchestrator.console import make_console
from orchestrator.errors import UserError
from orchestrator.evaluate import _check_origin
from orchestrator.settings import SweepSettings, Workdir
from orchestrator.statistics import ALPHA, LEAST, rank_correlation, summarize

if TYPE_CHECKING:  # for `--help`, which loads neither torch nor ray
    from rich.console import Console

    from orchestrator.cluster import Resources
    from orchestrator.inputs import Inputs
    from trainables.dcs import MeasureWork, SetMeasures
    from trainables.synthetic import SyntheticSet

__all__ = ["MeasuredSet", "corrected_correlation", "dcs_records", "main", "reading"]

FORMAT_VERSION = 1
ALL = "all"
LEAST_SETS = 2 * LEAST
"""Sets of one size from which on they have a correlation: `statistics.rank_correlation` has none of fewer."""
RESAMPLES = 9999
"""Random orders that a p is made of, as in `statistics.rank_correlation`."""


@dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """A set of the collection, and what it was measured to be."""

    name: str
    ipc: int
    losses: Mapping[str, float]
    """Distillation losses by name; not finite where something diverged."""
    test_losses: Sequence[float]
    """Mean cross-entropy of each network trained on it; likewise."""
    accuracies: Sequence[float]

    @property
    def test_loss(self) -> float:
        """Mean over networks."""
        return math.fsum(self.test_losses) / len(self.test_losses)


class _SeveralValues(click.Command):
    """A command whose options `--ipc` and `--synthetic` take all words that follow them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say the option again before every further word; the command has no arguments of its own."""
        said: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                option = word if word in ("--ipc", "--synthetic") else ""
            elif option and said[-1] != option:
                said.append(option)
            said.append(word)
        return super().parse_args(ctx, said)


@click.command(cls=_SeveralValues, help="Measure whether distillation losses tell how good sets are, at equal size.")
@space_option(required=True)
@click.option(
    "--synthetic", "files", type=click.Path(path_type=Path), multiple=True, metavar="FILE …",
    help="Stored sets of the space's dataset, .safetensors.",
)  # fmt: skip
@click.option("--subsets", type=click.IntRange(min=1), metavar="M", help="Random real subsets of each --ipc.")
@click.option(
    "--ipc", "ipcs", type=click.IntRange(min=1), multiple=True, metavar="N …",
    help="Images per class of the subsets; several: 1 5. Default: trial 0's.",
)  # fmt: skip
@click.option(
    "--losses", metavar="NAMES", default="all", show_default=True, help="trajectory,distribution,gradient, or all."
)
@click.option("--networks", type=click.IntRange(min=1), default=3, show_default=True, help="Networks on each set.")
@click.option(
    "--split", type=click.Choice(["test", "validation"]), default="test", show_default=True, help="What tests them."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
@expert_options
@one_line_errors
def main(
    space_name: str,
    files: tuple[Path, ...],
    subsets: int | None,
    ipcs: tuple[int, ...],
    losses: str,
    networks: int,
    split: str,
    seed: int,
    json_path: Path | None,
    experts: int | None,
    workdir: str,
    data: Path | None,
    address: str,
    concurrent: int | None,
    gpus_per_trial: float | str | None,
    overrides: tuple[str, ...],
    retrain_corrupt: bool,
    quiet: bool,
) -> None:
    """Measure a collection of sets."""
    space = load_space(space_name, overrides, expert_count=experts)
    settings = SweepSettings(
        space=space, name="dcs", seed=seed, workdir=Workdir.at(workdir), address=address, concurrent=concurrent,
        gpus_per_trial=gpus_per_trial, data=data, retrain_corrupt=retrain_corrupt, quiet=quiet,
    )  # fmt: skip
    _check_options(files, subsets, ipcs, address, json_path)
    settings.workdir.check_writable()
    check_answers(address)
    settings.check_dataset()

    from orchestrator.cluster import connected
    from orchestrator.inputs import prepare_inputs
    from trainables.dcs import LOSSES, loss_config

    chosen = _chosen(losses, LOSSES)
    if "trajectory" not in chosen and (experts or retrain_corrupt):
        raise UserError("--experts and --retrain-corrupt are for the trajectory loss; add it to --losses, or drop them")
    console = make_console(quiet=quiet)
    trial_0 = space.resolve(space.first())
    wanted = sorted(set(ipcs)) or [trial_0["ipc"]]
    stored = _read_stored(files, settings, split)
    for ipc in {*(each.ipc for each in stored.values()), *(wanted if subsets else ())}:
        for loss in chosen:
            loss_config(trial_0, loss, ipc)  # refused now, and not by a worker after the experts have been trained
    inputs = prepare_inputs(settings, console)
    sources = _collection(stored, subsets or 0, wanted, inputs, console)
    with connected(address, gpus_per_trial, concurrent) as resources:
        work = _work(inputs, resources, trial_0, chosen, networks, split)
        if "trajectory" in chosen:
            _train_experts(inputs, resources, console)
        measured = _measure(work, list(sources.values()), resources, resources.workers(concurrent), console)
    sets = [
        MeasuredSet(name=name, ipc=ipc, **found._asdict()) for (name, ipc), found in zip(sources, measured, strict=True)
    ]
    records = dcs_records(sets, chosen)
    result = make_console()  # --quiet leaves out all but this
    result.print(_table(records, split))
    for loss in chosen:
        result.print(reading(loss, records, split), markup=False)
    if json_path is not None:
        facts = {"version": FORMAT_VERSION, "space": space.name, "seed": seed, "split": split, "networks": networks}
        content = {**facts, "records": records, "sets": [_set_record(each) for each in sets]}
        json_path.write_text(json.dumps(content, indent=1, allow_nan=False))


def _check_options(
    files: Sequence[Path], subsets: int | None, ipcs: Sequence[int], address: str, json_path: Path | None
) -> None:
    """Refuse what cannot be measured, or would have no effect, before anything is loaded."""
    if not files and subsets is None:
        raise UserError("a collection needs sets, and there are none; give --synthetic FILE … or --subsets M, or both")
    if ipcs and subsets is None:
        raise UserError("--ipc is the size of random real subsets, and --subsets is not given; add it, or drop --ipc")
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"--synthetic {missing[0]} is not a file")
    if twice := [path for path in files if files.count(path) > 1]:
        raise UserError(f"--synthetic {twice[0]} is given twice, and a set counts once; drop one")
    if address.startswith("ray://"):
        raise UserError(f"--address {address} is a client's, which reads no workdir there; run on a node, with auto")
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise UserError(f"--json {json_path} is in no folder; make {json_path.parent} first")


def _chosen(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the losses that a word stands for, in the order in which they are known."""
    given = known if text == "all" else tuple(text.split(","))
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"--losses are names of {', '.join(known)} joined by commas, or all, not {unknown[0]!r}")
    return tuple(name for name in known if name in given)


def _read_stored(files: Sequence[Path], settings: SweepSettings, split: str) -> dict[Path, "SyntheticSet"]:
    """Read sets that say what they are, and refuse those that are not of the space's images."""
    from trainables.synthetic import read_synthetic

    stored = {path: read_synthetic(path) for path in files}
    # A set that has seen other training images may have seen those that validate here.
    alike = ("zca", "validation_share") if split == "validation" else ("zca",)
    for path, each in stored.items():
        if each.dataset != settings.space.dataset:
            raise UserError(f"{path} was made from {each.dataset}, not from {settings.space.dataset}; change --space")
        for key in alike:
            theirs, ours = each.config.get(key, settings.fixed[key]), settings.fixed[key]
            if theirs != ours:
                raise UserError(f"{path} was made with {key} = {theirs}, the space has {ours}; --set {key}={theirs}")
    return stored


def _collection(
    stored: "Mapping[Path, SyntheticSet]", subsets: int, ipcs: Sequence[int], inputs: "Inputs", console: "Console"
) -> dict[tuple[str, int], Any]:
    """Return what `measure_set` takes of each set, by name and images per class; says what of a stored set is not read.

    Raises:
        UserError: A stored set has other classes or normalisation, or a class too few images for the subsets.
    """
    from trainables.dcs import RealSubset
    from trainables.seeding import seed_of

    dataset = inputs.dataset
    sources: dict[tuple[str, int], Any] = {}
    for path, each in stored.items():
        for note in _check_origin(path, each, dataset):
            console.print(f"Note: {path}: {note}", markup=False)
        sources[str(path), each.ipc] = each.images.numpy()
    smallest = int(dataset.labels("train").bincount(minlength=dataset.classes).min())
    if subsets and ipcs[-1] > smallest:
        raise UserError(f"--ipc is at most {smallest}, the images of the smallest class, not {ipcs[-1]}; lower it")
    for ipc, number in product(ipcs, range(subsets)):
        seed = seed_of(inputs.settings.seed, "dcs", "subset", ipc, number)
        sources[f"random real, {number}", ipc] = RealSubset(ipc, seed)
    return sources


def _work(
    inputs: "Inputs",
    resources: "Resources",
    trial_0: Mapping[str, Any],
    losses: tuple[str, ...],
    networks: int,
    split: str,
) -> "MeasureWork":
    from trainables.dcs import MeasureWork

    settings = inputs.settings
    return MeasureWork(
        dataset=inputs.file,
        store=settings.workdir.experts,
        identity=inputs.store.identity,
        experts=settings.fixed["expert_count"],
        epochs=settings.space.horizon_epochs,
        network=inputs.network,
        augmentation=inputs.augmentation,
        settings=trial_0,
        losses=losses,
        split=split,
        protocol=settings.final_protocol,
        networks=networks,
        seed=settings.seed,
        device=resources.device,
        device_share=resources.gpus_per_trial or 1 / resources.workers(settings.concurrent),
    )


def _train_experts(inputs: "Inputs", resources: "Resources", console: "Console") -> None:
    from orchestrator.experts import ensure_experts

    summary = ensure_experts(inputs, resources, console)
    console.print(summary.line(inputs.store.shared.place("").rstrip("/")))


def _measure(
    work: "MeasureWork", sources: Sequence[Any], resources: "Resources", limit: int, console: "Console"
) -> "list[SetMeasures]":
    """Have workers measure sets, at most so many at once, and return what they found, in order.

    Raises:
        InputError: What a worker refused.
    """
    import ray
    from ray.exceptions import RayTaskError

    from orchestrator.live import progress_bar
    from trainables.dcs import measure_set

    run = ray.remote(measure_set).options(**resources.actor_options)
    found: dict[int, SetMeasures] = {}
    running: dict[Any, int] = {}
    with resources.requested(min(limit, len(sources))), progress_bar(console, "Sets", len(sources)) as show:
        for number, source in enumerate(sources):
            running[run.remote(work, source)] = number
            while len(running) >= limit or (running and number == len(sources) - 1):
                (done,), _ = ray.wait(list(running))
                try:
                    found[running.pop(done)] = ray.get(done)
                except RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, Exception) else error) from None
                show(len(found))
    return [found[number] for number in range(len(sources))]


def corrected_correlation(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float] | None:
    """Return Spearman's ρ of pairs within their groups, pooled, and its two-sided p by permutation within groups.

    Within each group both sides' ranks are standardised (mean 0, sample variance 1) and then pooled: their correlation
    is Σ (n_g − 1) ρ_g / Σ (n_g − 1), the mean of the groups' own ρ_g weighted by the inverse of the variance that each
    has under the null. Nothing that only differs between groups, such as the sets' size, can contribute.
    docs/design/dcs.md.

    Args:
        groups: The two sides of each, equally long; groups of one pair, or with a constant side, say nothing.

    Returns:
        None where Σ (n_g − 1) is smaller than that of one group which `statistics.rank_correlation` would take.
    """
    ranked = [(_standard_ranks(x), _standard_ranks(y)) for x, y in groups if len(set(x)) > 1 and len(set(y)) > 1]
    weight = sum(len(x) - 1 for x, _ in ranked)
    if weight < LEAST_SETS - 1:
        return None
    rho = sum(float(x @ y) for x, y in ranked) / weight
    draws = np.random.default_rng(0)
    orders = np.zeros(RESAMPLES)
    for x, y in ranked:
        orders += draws.permuted(np.tile(x, (RESAMPLES, 1)), axis=1) @ y / weight
    slack = 1e-12  # sums of the same numbers may differ by a rounding
    as_far = min(np.count_nonzero(orders >= rho - slack), np.count_nonzero(orders <= rho + slack))
    return rho, min(1.0, float(2 * (as_far + 1) / (RESAMPLES + 1)))


def _standard_ranks(values: Sequence[float]) -> np.ndarray:
    ranks = stats.rankdata(values)
    return np.asarray((ranks - ranks.mean()) / ranks.std(ddof=1))


def dcs_records(sets: Sequence[MeasuredSet], losses: Sequence[str]) -> list[dict[str, Any]]:
    """Return the score of each loss: at each size, and of several sizes over all sets, corrected for size and not.

    Returns:
        Records of loss, ipc (a size, or "all"), corrected (of "all": whether for size; of a size None), rho and p (None
        where there are too few sets, or all are alike), n (sets that are counted; in the corrected score those that
        are not alone in their size), left_out (sets where either side is not finite), and loss_mean, loss_std,
        test_loss_mean and test_loss_std (None where n is 0).
    """
    records = []
    for loss in losses:
        told: dict[int, list[tuple[float, float]]] = {ipc: [] for ipc in sorted({each.ipc for each in sets})}
        for each in sets:
            told[each.ipc].append((each.losses[loss], each.test_loss))
        groups = {ipc: [pair for pair in pairs if all(map(math.isfinite, pair))] for ipc, pairs in told.items()}
        for ipc, pairs in groups.items():
            out = len(told[ipc]) - len(pairs)
            records.append(_record(loss, ipc, None, pairs, rank_correlation(*_sides(pairs)), out))
        if len(groups) > 1:
            everything = [pair for pairs in groups.values() for pair in pairs]
            comparable = [pair for pairs in groups.values() if len(pairs) > 1 for pair in pairs]
            corrected = corrected_correlation([_sides(pairs) for pairs in groups.values()])
            out = len(sets) - len(everything)
            records.append(_record(loss, ALL, True, comparable, corrected, out))
            records.append(_record(loss, ALL, False, everything, rank_correlation(*_sides(everything)), out))
    return records


def _sides(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _record(
    loss: str,
    ipc: int | str,
    corrected: bool | None,
    pairs: Sequence[tuple[float, float]],
    found: tuple[float, float] | None,
    left_out: int,
) -> dict[str, Any]:
    rho, p = found or (None, None)
    spreads = {
        f"{name}_{figure}": summarize(side)[figure] if side else None
        for name, side in zip(("loss", "test_loss"), _sides(pairs), strict=True)
        for figure in ("mean", "std")
    }
    score = {"loss": loss, "ipc": ipc, "corrected": corrected, "rho": rho, "p": p}
    return {**score, "n": len(pairs), "left_out": left_out, **spreads}


def _table(records: Sequence[Mapping[str, Any]], split: str) -> Table:
    title = f"Distillation correlation score: Spearman's ρ of loss and cross-entropy on the {split} split"
    table = Table(title=title, title_justify="left")
    for heading in ("loss", "images a class"):
        table.add_column(heading)
    for heading in ("sets", "ρ", "p", "loss, mean ± std", "cross-entropy, mean ± std"):
        table.add_column(heading, justify="right")
    for each in records:
        size = {None: str(each["ipc"]), True: "all, corrected for size", False: "all, not corrected"}[each["corrected"]]
        told = each["rho"] is not None
        rho, p = (f"{each['rho']:+.2f}", f"{each['p']:.2g}") if told else (_why_none(each), "–")
        spreads = [
            "–" if each[f"{side}_mean"] is None else f"{each[f'{side}_mean']:.4g} ± {each[f'{side}_std']:.2g}"
            for side in ("loss", "test_loss")
        ]
        out = f" ({each['left_out']} left out: not finite)" if each["left_out"] else ""
        table.add_row(each["loss"], size, f"{each['n']}{out}", rho, p, *spreads)
    return table


def _why_none(record: Mapping[str, Any]) -> str:
    few = record["n"] < LEAST_SETS or record["corrected"]
    return f"too few: {LEAST_SETS} of a size are needed" if few else "none: all alike"


def reading(loss: str, records: Sequence[Mapping[str, Any]], split: str) -> str:
    """Return what a loss's score says in a sentence: its one size's, or that over all sizes, corrected.

    Args:
        loss: Its name.
        records: `dcs_records` of sets among whose losses it is.
        split: What tested the networks.
    """
    own = [each for each in records if each["loss"] == loss]
    score = next((each for each in own if each["corrected"]), own[0])
    if score["rho"] is None:
        return f"{loss}: no score, {_why_none(score)}."
    if score["p"] > ALPHA:
        says = f"a lower loss says nothing of the {split} loss that chance would not"
    elif score["rho"] > 0:
        says = f"a lower loss goes with a lower {split} loss"
    else:
        says = f"a lower loss goes with a higher {split} loss, the opposite of what minimising it is for"
    at = f"ρ = {score['rho']:+.2f}, permutation p = {score['p']:.2g}, n = {score['n']}"
    return f"{loss}: among sets of equal size {says} ({at})."


def _set_record(each: MeasuredSet) -> dict[str, Any]:
    """Return what --json says of a set; None for what is not finite."""

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "name": each.name,
        "ipc": each.ipc,
        "losses": {loss: plain(value) for loss, value in each.losses.items()},
        "test_loss": plain(each.test_loss),
        "test_losses": [plain(value) for value in each.test_losses],
        "accuracy": math.fsum(each.accuracies) / len(each.accuracies),
        "accuracies": list(each.accuracies),
    }


if __name__ == "__main__":
    main()
