"""Peak memory and time of preparing a dataset, in a process of its own.

python -m benchmarks.preparing --dataset tiny_imagenet --data DIR
python -m benchmarks.preparing --made 60000 --size 64          # a made dataset of so many images, in Parquet files
"""

import io
import resource
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.measure import fresh_process
from trainables.data import datasets

CLASSES = 10
SHARD = 4096
"""Images of a made Parquet file."""


@click.command()
@click.option("--dataset", default="parquet", show_default=True, help="Name of the dataset.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder of its files.")
@click.option("--made", type=click.IntRange(CLASSES * 2), help="Instead: number of training images that are made.")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Their height and width, pixels.")
def main(dataset: str, data: Path | None, made: int | None, size: int) -> None:
    """Prepare a dataset in an empty folder, and print what it took."""
    with tempfile.TemporaryDirectory() as place:
        if made is not None:
            data = Path(place) / "made"
            make(data, made, size)
        with fresh_process() as process:
            base, peak, seconds, digest = process.submit(measure, dataset, data, Path(place) / "cache").result()
    click.echo(
        f"{dataset}: {seconds:.1f} s, peak {peak / 2**20:,.0f} MiB, of which {base / 2**20:,.0f} MiB before; "
        f"digest {digest}"
    )


def measure(dataset: str, data: Path | None, cache: Path) -> tuple[int, int, float, str]:
    """Return peak bytes of this process before and after it prepares a dataset, seconds, and the digest."""
    datasets.prepare("digits", cache=cache, validation_share=0.1)  # loads the libraries
    base = _peak_bytes()
    began = time.perf_counter()
    path = datasets.prepare(dataset, cache=cache, data=data, validation_share=0.1)
    seconds = time.perf_counter() - began
    return base, _peak_bytes(), seconds, datasets.load(path).digest


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make(folder: Path, images: int, size: int) -> None:
    """Write Parquet files of noisy JPEGs, `images` of them to train and a tenth of these to test."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", images), ("test", max(CLASSES, images // 10))):
        shards = -(-count // SHARD)
        for shard in range(shards):
            labels = np.arange(shard * SHARD, min(count, (shard + 1) * SHARD)) % CLASSES
            encoded = []
            for label in labels:
                content = io.BytesIO()
                pixels = random.integers(0, 100, (size, size, 3), dtype=np.uint8) + np.uint8(10 * label)
                Image.fromarray(pixels).save(content, "JPEG")
                encoded.append(content.getvalue())
            table = pa.table({"image": pa.array(encoded, pa.binary()), "label": labels})
            pq.write_table(table, folder / f"{split}-{shard:05}-of-{shards:05}.parquet", row_group_size=512)


if __name__ == "__main__":
    main()
