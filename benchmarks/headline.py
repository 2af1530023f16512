"""M-DATM from nothing to the challenge's figure within a time budget, on one machine, without Ray, Optuna and MLflow.

python -m benchmarks.headline --dataset digits --ipc 1 --budget-s 90
python -m benchmarks.headline --dataset tiny_imagenet --ipc 10 --data DIR --device cuda --budget-s 3600

Trains as many experts as their share of the budget allows, distils with the published setting until only the time of
the final evaluation is left, and then evaluates the last images once on the test split under the challenge's protocol.
During distillation it measures the accuracy on a held-out share of the training images, at growing intervals. All
deviations from the published experiment are listed.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from benchmarks.budget import Clock, plan_of
from benchmarks.deviations import deviations_of
from benchmarks.measure import device_fault, surroundings
from benchmarks.problem import Problem
from benchmarks.published import Setting, setting_of
from benchmarks.record import draw, new_record, point_line, summary, write, write_images
from benchmarks.stages import distil, final_test, start_distillation, train_experts, workbench_of
from search_spaces import SpaceError
from trainables.data.augmentation import parse_families
from trainables.data.datasets import load, prepare
from trainables.errors import ConfigError, InputError
from trainables.networks.convnet import ConvNet
from trainables.workers.process import use_arithmetic


def run(arguments: argparse.Namespace, workdir: Path) -> None:
    """Run all stages, and write results as they are made.

    Raises:
        InputError: The data, a setting or the budget is invalid; nothing was written to the output folder.
        SpaceError: A setting is invalid; nothing was written to the output folder.
    """
    setting = setting_of(
        arguments.dataset,
        arguments.ipc,
        assignments=arguments.set,
        iterations=arguments.iterations,
        compiled=arguments.compile,
    )
    device = checked_device(arguments.device)
    use_arithmetic(arguments.device, setting.arithmetic)
    around = {**surroundings(arguments.device), "threads": torch.get_num_threads()}
    clock, out = Clock(arguments.budget_s), arguments.out
    problem = prepared(arguments, setting, workdir, device)
    print(f"{clock.spent:8,.1f} s  {problem.dataset.name} is prepared; setting: {setting.source}", flush=True)

    experts = train_experts(problem, arguments.experts or setting.values["expert_count"], clock)
    began = clock.spent
    plan = plan_of(problem, arguments.networks, clock)
    bench = workbench_of(problem, experts["count"], plan.validation_epochs)
    distiller = start_distillation(problem, bench)
    record = new_record(
        problem,
        plan,
        distiller,
        budget=arguments.budget_s,
        classes=arguments.classes,
        surroundings=around,
        experts=experts,
        preparation_seconds=clock.spent - began,
    )

    out.mkdir(parents=True, exist_ok=True)
    for point in distil(problem, bench, distiller, clock, plan.deadline):
        record["curve"].append(point)
        print(f"{clock.spent:8,.1f} s  {point_line(point)}", flush=True)
        write(out, record)
        write_images(out, distiller)
    record["curve_drawn_by"] = draw(out, problem, distiller, record, began)

    record["test"] = final_test(problem, distiller.result_images, arguments.networks, plan, clock)
    record |= {"deviations": deviations_of(problem, record), "seconds": clock.spent, "finished": True}
    write(out, record)
    print(summary(record, out))


def checked_device(name: str) -> torch.device:
    """Return a device after checking, before any work, that it exists.

    Raises:
        ConfigError: The device does not exist.
    """
    if fault := device_fault(name):
        raise ConfigError(fault)
    return torch.device(name)


def prepared(arguments: argparse.Namespace, setting: Setting, workdir: Path, device: torch.device) -> Problem:
    """Prepare the dataset, or reuse an earlier run's, and return the problem.

    Raises:
        InputError: The dataset is missing, or its classes or the network are invalid.
    """
    values = setting.values
    file = prepare(
        arguments.dataset,
        cache=workdir / "datasets",
        data=arguments.data,
        validation_share=values["validation_share"],
        classes=arguments.classes,
    )
    dataset = load(file)
    network = ConvNet(
        channels=dataset.channels,
        image_size=dataset.image_size,
        classes=dataset.classes,
        depth=arguments.depth or values["net_depth"],
        width=arguments.width or values["net_width"],
    )
    return Problem(
        setting=setting,
        file=file,
        dataset=dataset,
        network=network,
        families=parse_families(values["augmentation"], dataset.augmentation),
        stores=workdir / "experts",
        seed=arguments.seed,
        device=device,
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds larger than 0, not {text!r}")
    return value


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"headline: {message}\n")


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line; a fault in it ends the process, with code 2 and one line."""
    parser = _Parser(prog="python -m benchmarks.headline", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--dataset", required=True, metavar="NAME")
    parser.add_argument("--ipc", required=True, type=_count, metavar="K", help="images per class")
    parser.add_argument("--budget-s", required=True, type=_seconds, metavar="SECONDS", help="time for everything")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the dataset's files")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="keeps prepared data and experts for reuse")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("headline"), help="default: headline")
    parser.add_argument("--experts", type=_count, metavar="E", help="at most; default: the setting's")
    parser.add_argument("--iterations", type=_count, metavar="I", help="at most; default: the setting's")
    parser.add_argument("--width", type=_count, help="channels of the ConvNet; default: the setting's")
    parser.add_argument("--depth", type=_count, help="blocks of the ConvNet; default: the setting's")
    parser.add_argument("--classes", type=int, default=0, help="use only the first N classes; default, 0: all")
    parser.add_argument("--networks", type=_count, default=3, help="networks that are tested; default: 3")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--compile", choices=("on", "off"), default="off", help="compile the inner steps; default: off")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another value of the setting; repeatable"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line; exits with code 2 and one line if an input is invalid."""
    arguments = parsed(words)
    try:
        if arguments.workdir:
            arguments.workdir.mkdir(parents=True, exist_ok=True)
            run(arguments, arguments.workdir)
        else:
            with tempfile.TemporaryDirectory() as folder:
                run(arguments, Path(folder))
    except (InputError, SpaceError) as error:
        print(f"headline: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
