"""The comparison of `cifar10_regimes` on a tenth of CIFAR-10, small enough for a computer with two cores.

python -m benchmarks.cifar10_small --data DIR --out SMALL        # Parquet files of CIFAR-10 → the same with fewer rows
python -m orchestrator.baselines --space benchmarks/cifar10_small.py --data SMALL
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from search_spaces.cifar10_regimes import SPACE as CIFAR10
from search_spaces.space import Fixed

OURS = "ours: two cores"

SPACE = replace(
    CIFAR10,
    name="cifar10_small",
    title="What must a distilled set beat on a tenth of CIFAR-10, and what do soft labels hide?",
    reference="our own settings: the papers' are for all of CIFAR-10 and for networks of width 128",
    parameters={
        **CIFAR10.parameters,
        "ipcs": Fixed("1,5", source=OURS),
        "methods": Fixed("random,el2n_easy,el2n_hard,herding,k_center,cad_prune,rded,dm,m_datm", source=OURS),
        "net_width": Fixed(32, source=OURS),
        "expert_count": Fixed(4, source=OURS),
        "horizon_epochs": Fixed(14, source="T_plus + M"),
        "expert_batch_size": Fixed(64, source="ours: a tenth of the images, so as many steps with smaller batches"),
        "full_data_epochs": Fixed(20, source=OURS),
        "validation_epochs": Fixed(100, source=OURS),
        "N": Fixed(10, source=OURS),
        "M": Fixed(2, source="DATM's CIFAR-10 configuration, METHOD §2"),
        "T_minus": Fixed(0, source="M-DATM's early range, METHOD §2"),
        "T_width": Fixed(6, source=OURS),
        "T_growth": Fixed(6, source=OURS),
        "batch_syn": Fixed(25, source=OURS),
        "validation_every_iterations": Fixed(50, source=OURS),
    },
    variants={
        "dm": {"method": "distribution", "batch_real": 64, "lr_pixel": 1.0, "iterations": 200},
        "dc": {"method": "gradient", "batch_real": 64, "lr_pixel": 0.1, "iterations": 50},
        "m_datm": {"method": "trajectory", "lr_pixel": 100.0, "iterations": 150},
    },
)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="CIFAR-10 as Parquet files.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the small ones.")
@click.option("--train", type=click.IntRange(1), default=500, show_default=True, help="Training images of a class.")
@click.option("--test", type=click.IntRange(1), default=100, show_default=True, help="Test images of a class.")
def main(data: Path, out: Path, train: int, test: int) -> None:
    """Keep the first images of each class."""
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
