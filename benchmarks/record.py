"""The output of a headline run: a JSON record, the images, and pictures of them."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.budget import Plan
from benchmarks.pictures import draw_before_and_after, draw_curve
from benchmarks.problem import Problem
from benchmarks.published import PUBLISHED
from trainables.distillation.trajectory import Distiller
from trainables.storage.atomic import write_atomically, write_json

__all__ = ["VERSION", "draw", "new_record", "point_line", "summary", "write", "write_images"]

VERSION = 1


def new_record(
    problem: Problem,
    plan: Plan,
    distiller: Distiller,
    *,
    budget: float,
    classes: int,
    surroundings: Mapping[str, Any],
    experts: Mapping[str, Any],
    preparation_seconds: float,
) -> dict[str, Any]:
    """Return the record of a run before its distillation.

    Args:
        problem: The run's problem.
        plan: The division of the time.
        distiller: The distillation.
        budget: Seconds of the whole run.
        classes: Classes asked for; 0: all.
        surroundings: Date, hardware and versions.
        experts: The experts' own record.
        preparation_seconds: Seconds since the last expert.
    """
    setting, config = problem.setting, problem.config
    return {
        "version": VERSION,
        "benchmark": "headline",
        "finished": False,
        "dataset": problem.dataset.name,
        "ipc": config.ipc,
        "classes_asked": classes,
        "budget_s": budget,
        "source": setting.source,
        "setting": {**asdict(config), **asdict(setting.recipe), "network": asdict(problem.network)},
        "augmentation": list(problem.families),
        "seed": problem.seed,
        "iterations_of_setting": setting.published_iterations,
        "surroundings": dict(surroundings),
        "experts": dict(experts),
        "micro_batch_images": distiller.matcher.step.micro_batch,
        "published_accuracy": None if classes else PUBLISHED.get((problem.dataset.name, config.ipc)),
        "curve": [],
        "validation": {
            "epochs": plan.validation_epochs,
            "networks": 1,
            "images": len(problem.dataset.split("validation")),
        },
        "test_cost": asdict(plan.test_cost),
        "preparation_seconds": preparation_seconds,
    }


def point_line(point: Mapping[str, Any]) -> str:
    """Return a line about a point of the curve."""
    loss = "" if point["matching_loss"] is None else f", matching loss {point['matching_loss']:.4f}"
    skipped = f", {point['skipped']:,} skipped" if point["skipped"] else ""
    return f"iteration {point['iteration']:,}: validation {point['validation_accuracy']:.2%}{loss}{skipped}"


def write(out: Path, record: Mapping[str, Any]) -> None:
    """Write the record, replacing an earlier one."""
    write_json(out / "headline.json", record)


def write_images(out: Path, distiller: Distiller) -> None:
    """Write the images as they are now, normalised float32 [ipc·C, ch, H, W] in default order."""
    images = distiller.result_images.detach().cpu().clone()  # the tensor alone, not the storage that it is a view of
    write_atomically(out / "synthetic.pt", partial(torch.save, images))


def draw(out: Path, problem: Problem, distiller: Distiller, record: Mapping[str, Any], began: float) -> str:
    """Draw the images before and after, and the curve; return the library that drew the curve.

    Args:
        out: Folder of the pictures.
        problem: The run's problem.
        distiller: The distillation at its end.
        record: Holds the curve.
        began: End of the expert stage on the run's clock, s.
    """
    dataset, curve = problem.dataset, record["curve"]
    draw_before_and_after(
        out / "images.png",
        dataset.displayable(distiller.initial_images.cpu()),
        dataset.displayable(distiller.result_images.detach().cpu()),
        dataset.classes,
        f"{distiller.iteration:,} iterations",
    )
    seconds, accuracies = ([point[name] for point in curve] for name in ("seconds", "validation_accuracy"))
    title = f"{dataset.name}, {problem.config.ipc} per class"
    return draw_curve(out / "curve.png", seconds, accuracies, title, began)


def summary(record: Mapping[str, Any], out: Path) -> str:
    """Return the text that is printed at the end."""
    test, published = record["test"], record["published_accuracy"]
    spread = "" if test["std"] is None else f" ± {test['std']:.2%}"
    beside = "" if published is None else f"; published: {published:.2%}"
    lines = [
        f"\ntest accuracy {test['mean']:.2%}{spread}, n = {test['n']}{beside}",
        f"{record['seconds']:,.0f} s of {record['budget_s']:,.0f} s",
        *(f"- {text}" for text in record["deviations"]),
    ]
    if record["curve_drawn_by"] != "matplotlib":
        lines.append(f"matplotlib is not installed: the curve was drawn by {record['curve_drawn_by']}")
    return "\n".join([*lines, f"{out}: headline.json, curve.png, images.png, synthetic.pt"])
