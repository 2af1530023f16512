"""The project's own entries, in the order of tables. docs/method.md describes the methods."""

from search_spaces.entry import Entry, Kind

__all__ = ["OWN"]

_CORESETS = "trainables.baselines.coresets"


def _coreset(name: str, label: str, function: str, page: str) -> Entry:
    return Entry(
        kind=Kind.CORESET, name=name, label=label, implementation=f"{_CORESETS}.{function}",
        page=f"docs/coresets/{page}.md",
    )  # fmt: skip


def _baseline(name: str, label: str) -> Entry:
    return Entry(
        kind=Kind.BASELINE, name=name, label=label, implementation=f"trainables.baselines.{name}:make",
        page=f"docs/coresets/{name}.md",
    )  # fmt: skip


def _method(name: str, label: str, implementation: str, compared_as: str) -> Entry:
    return Entry(
        kind=Kind.METHOD, name=name, label=label, implementation=f"trainables.distillation.{implementation}",
        page="docs/design/methods.md", compared_as=compared_as,
    )  # fmt: skip


def _dataset(name: str, label: str) -> Entry:
    return Entry(
        kind=Kind.DATASET, name=name, label=label, implementation=f"trainables.data.published:{name}",
        page="docs/design/datasets.md",
    )  # fmt: skip


OWN = (
    _coreset("random", "random real images", "random:select", "random"),
    _coreset("el2n_easy", "EL2N, easiest", "el2n:select_easy", "el2n"),
    _coreset("el2n_hard", "EL2N, hardest", "el2n:select_hard", "el2n"),
    _coreset("el2n_best", "EL2N, best window", "el2n:select_best", "el2n"),
    _coreset("grand", "GraNd", "grand:select", "grand"),
    _coreset("forgetting", "forgetting", "forgetting:select", "forgetting"),
    _coreset("k_center", "k-centre greedy", "k_center:select", "k_center"),
    _coreset("herding", "herding", "herding:select", "herding"),
    _coreset("moderate", "moderate", "moderate:select", "moderate"),
    _coreset("uncertainty", "uncertainty", "uncertainty:select", "uncertainty"),
    _coreset("dynamic_uncertainty", "dynamic uncertainty", "dynamic_uncertainty:select", "dynamic_uncertainty"),
    _coreset("cad_prune", "CAD-Prune", "cad_prune:select", "cad_prune"),
    _baseline("rded", "RDED"),
    _baseline("ca2d", "CA2D"),
    _baseline("sre2l", "SRe2L"),
    _method("distribution", "DM", "distribution:DistributionMatching", "dm"),
    _method("gradient", "DC", "gradient:GradientMatching", "dc"),
    _method("trajectory", "M-DATM", "trajectory:Distiller", "m_datm"),
    _dataset("digits", "scikit-learn's digits"),
    _dataset("cifar10", "CIFAR-10"),
    _dataset("cifar100", "CIFAR-100"),
    _dataset("tiny_imagenet", "Tiny ImageNet"),
    _dataset("mnist", "MNIST"),
    _dataset("fashion_mnist", "Fashion-MNIST"),
    _dataset("kmnist", "KMNIST"),
    _dataset("svhn", "SVHN"),
    _dataset("stl10", "STL-10"),
    _dataset("parquet", "Parquet files"),
    _dataset("folder", "a folder of image files"),
    _dataset("own", "a dataset of one's own"),
    Entry(
        kind=Kind.NETWORK, name="convnet", label="ConvNet", implementation="trainables.networks.convnet:ConvNet",
        page="docs/design/method.md",
    ),
)  # fmt: skip
"""All entries of the project; tables have the entries of a kind in this order."""
