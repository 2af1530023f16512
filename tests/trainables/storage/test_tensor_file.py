"""Equal content gives equal files, whatever process writes them and wherever."""

import io
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load

from tests.support.paths import ROOT
from trainables.storage.tensor_file import safetensors_content, torch_content

METADATA = {f"key {number}": f'text {number}: θ, "quoted", \\ and\nlines' for number in range(12)}
TENSORS = {"images": torch.arange(12.0).reshape(3, 4), "labels": torch.tensor([1, 2, 3]), "alpha": torch.tensor(0.5)}

WRITE = """
import sys
from pathlib import Path
import torch
from trainables.data.synthetic import SyntheticSet, write_challenge, write_synthetic
from trainables.storage.checkpoints import write_checkpoint
from trainables.storage.tensor_cache import load_or_make
folder = Path(sys.argv[1])
images = torch.arange(128.0).reshape(2, 1, 8, 8) / 128
synthetic = SyntheticSet(
    images=images, labels=torch.arange(2), alpha=0.02, dataset="digits", class_names=("a", "b"),
    mean=(0.5,), std=(0.2,),
    ipc=1, method="M-DATM", config={"N": 3, "lr_pixel": 0.1}, provenance={"sweep": "a", "seed": 0},
)
write_synthetic(folder / "synthetic.safetensors", synthetic)
write_challenge(folder / "synthetic.pt", images)
write_checkpoint(str(folder / "trial-000.safetensors"), {"images": images, "iteration": 5, "settings": {"N": 3}})
load_or_make(folder / "scores", "teacher", {"seed": 0}, lambda: {"theta": images})
"""


def test_the_files_of_two_processes_in_two_folders_are_equal(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "another, with a longer name"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed + 1)}
        subprocess.run([sys.executable, "-c", WRITE, folder], check=True, env=environment)
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in folders]
    assert names[0] == names[1] and len(names[0]) == 4
    for name in names[0]:
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert one == other, name


def test_safetensors_reads_what_is_written_and_the_metadata_is_in_order(tmp_path: Path) -> None:
    content = safetensors_content(TENSORS, METADATA)
    file = tmp_path / "file.safetensors"
    file.write_bytes(content)
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == METADATA
        for name, tensor in TENSORS.items():
            assert torch.equal(opened.get_tensor(name), tensor)
    assert load(content).keys() == TENSORS.keys()
    places = [content.index(f'"{key}"'.encode()) for key in sorted(METADATA)]
    assert places == sorted(places)
    header = int.from_bytes(content[:8], "little")
    assert header % 8 == 0, "tensors are aligned, as safetensors itself aligns them"
    assert content == safetensors_content(TENSORS, dict(reversed(METADATA.items())))


def test_torch_reads_what_is_written() -> None:
    assert torch.equal(torch.load(io.BytesIO(torch_content(TENSORS["images"]))), TENSORS["images"])
