"""The comparison of `cifar10_regimes` on a tenth of CIFAR-10, small enough for a computer with two cores.

python -m benchmarks.cifar10_small --data DIR --out SMALL        # Parquet files of CIFAR-10 → the same with fewer rows
python -m orchestrator.baselines --space benchmarks/cifar10_small.py --data SMALL
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from search_spaces.registered.cifar10_regimes import SPACE as CIFAR10

METHODS = "random,forgetting,k_center,herding,moderate,uncertainty,rded,dm,dc,m_datm"
"""Of the coresets those that share one scoring run."""
SETTINGS: dict[str, Any] = {
    "ipcs": "1,5", "methods": METHODS, "repeats": 3, "net_width": 32, "full_data_epochs": 20, "validation_epochs": 100,
    "validation_every_iterations": 20, "expert_count": 4, "expert_batch_size": 64, "horizon_epochs": 14,
    "N": 10, "M": 2, "T_minus": 0, "T_width": 6, "T_growth": 6, "batch_syn": 25, "alpha_init": 0.02,
    "max_matching_loss": 5.0,
}  # fmt: skip
"""Fewer and smaller networks, shorter runs; a tenth of the images needs smaller batches for as many steps."""

SPACE = replace(
    CIFAR10.override(SETTINGS, source="ours: two cores"),
    name="cifar10_small",
    title="What must a distilled set beat on a tenth of CIFAR-10, and what do soft labels hide?",
    reference="our own settings: the papers' are for all of CIFAR-10 and for networks of width 128",
    variants={
        "dm": {"method": "distribution", "batch_real": 64, "lr_pixel": 1.0, "iterations": 100},
        "dc": {
            "method": "gradient", "batch_real": 64, "lr_pixel": 0.1, "iterations": 20,
            "outer_loop": 10, "inner_loop": 5,
        },
        "m_datm": {"method": "trajectory", "lr_pixel": 1000.0, "iterations": 60},
    },
)  # fmt: skip


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="CIFAR-10 as Parquet files.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the small files.")
@click.option("--train", type=click.IntRange(1), default=500, show_default=True, help="Training images of a class.")
@click.option("--test", type=click.IntRange(1), default=100, show_default=True, help="Test images of a class.")
def main(data: Path, out: Path, train: int, test: int) -> None:
    """Write a smaller dataset with the first images of every class."""
    import numpy as np
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    out.mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        table: Any = ds.dataset(sorted(data.glob(f"{split}*.parquet")), format="parquet").to_table()
        labels = table["label"].to_numpy()
        rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))
        pq.write_table(table.take(rows), out / f"{split}.parquet")


if __name__ == "__main__":
    main()
