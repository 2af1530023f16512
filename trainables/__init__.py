"""The numerics of trajectory matching in plain PyTorch, and the work units that Ray runs.

Only `workers` may import ray; all other modules work without it, for example in a notebook. The names in `__all__` are
public. They are imported on first use, so importing the package does not load torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.config.distillation import DistillationConfig as DistillationConfig
    from trainables.config.experts import ExpertRecipe as ExpertRecipe
    from trainables.config.protocol import Protocol as Protocol
    from trainables.config.reading import Reading as Reading
    from trainables.data.augmentation import Augmentation as Augmentation
    from trainables.data.datasets import ImageDataset as ImageDataset
    from trainables.data.datasets import load as load_dataset  # noqa: F401 - public
    from trainables.data.datasets import prepare as prepare_dataset  # noqa: F401 - public
    from trainables.data.synthetic import SyntheticSet as SyntheticSet
    from trainables.data.synthetic import read_synthetic as read_synthetic
    from trainables.data.synthetic import write_synthetic as write_synthetic
    from trainables.distillation.matching import Matcher as Matcher
    from trainables.distillation.trajectory import Distiller as Distiller
    from trainables.errors import InputError as InputError
    from trainables.evaluation.training import evaluate as evaluate
    from trainables.experts.store import TrajectoryStore as TrajectoryStore
    from trainables.experts.training import ExpertTrainer as ExpertTrainer
    from trainables.networks.convnet import ConvNet as ConvNet

    __version__: str

_MODULES = {
    "Augmentation": "data.augmentation",
    "ConvNet": "networks.convnet",
    "DistillationConfig": "config.distillation",
    "Distiller": "distillation.trajectory",
    "ExpertRecipe": "config.experts",
    "ExpertTrainer": "experts.training",
    "ImageDataset": "data.datasets",
    "InputError": "errors",
    "Matcher": "distillation.matching",
    "Protocol": "config.protocol",
    "Reading": "config.reading",
    "SyntheticSet": "data.synthetic",
    "TrajectoryStore": "experts.store",
    "load_dataset": "data.datasets",
    "prepare_dataset": "data.datasets",
    "evaluate": "evaluation.training",
    "read_synthetic": "data.synthetic",
    "write_synthetic": "data.synthetic",
}
"""The module that defines a public name."""
_NAMES_IN_MODULE = {"load_dataset": "load", "prepare_dataset": "prepare"}
"""Names in the modules, where they differ from the public ones."""

__all__ = [*_MODULES, "__version__"]  # noqa: PLE0604 - names of the table above


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name == "__version__":  # on use only: the package has no metadata on workers
        return version("mdatm-sweep")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), _NAMES_IN_MODULE.get(name, name))


def __dir__() -> list[str]:
    """Return the names of the package, including the public ones."""
    return sorted({*globals(), *__all__})
