"""How large everything is that is checked and measured: the papers' sizes on a GPU, small ones on a CPU."""

from dataclasses import dataclass, replace

from benchmarks.device.trainings import ExpertWork
from benchmarks.device.whole_run import IPC, HeadlineWork
from benchmarks.evaluation import Work
from benchmarks.matching import MatchingProblem
from benchmarks.published import settings_of
from trainables.data import catalog

__all__ = ["Shares", "Sizes", "cpu_sizes", "gpu_sizes"]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """When each part must have ended, as a share of the whole time; what one leaves, the next ones have."""

    machine: float
    correctness: float
    gradient: float
    experts: float
    networks: float
    sharing: float
    headline: float


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is checked and measured."""

    shares: Shares
    check: MatchingProblem
    """The gradient whose correctness is checked; its families and labels are replaced by all."""
    settings: dict[str, MatchingProblem]
    """The gradients that are measured, by name."""
    precisions: tuple[str, ...]
    """Precisions to check and measure, the most worth knowing first."""
    compiled: tuple[tuple[str, str], ...]
    """Compiled gradients to measure: name of the setting and precision, the most worth knowing first."""
    samples: int
    """The largest number of samples of a measurement."""
    compile_seconds: float
    """What compiling a step is assumed to take: where less time is left, it is left out."""
    experts: ExpertWork
    at_once: tuple[int, ...]
    """Numbers of experts trained side by side."""
    networks: Work
    shared: tuple[MatchingProblem, ...]
    """Gradients that several processes compute at the same time."""
    processes: tuple[int, ...]
    share_seconds: float
    """Duration of one sample of the sharing."""
    headline: HeadlineWork


def gpu_sizes() -> Sizes:
    """Return the sizes of M-DATM's settings at 10 images a class."""
    cifar100, tiny = _paper("cifar100"), _paper("tiny_imagenet")
    return Sizes(
        shares=Shares(
            machine=0.1, correctness=0.2, gradient=0.55, experts=0.65, networks=0.7, sharing=0.82, headline=0.98
        ),
        check=MatchingProblem(images=12, classes=4, size=16, width=32, depth=3, steps=3, batch=8, alpha=0.3),
        settings={"CIFAR-100": cifar100, "Tiny ImageNet": tiny},
        precisions=("fp32", "tf32", "bf16"),
        compiled=(
            ("CIFAR-100", "tf32"),
            ("Tiny ImageNet", "tf32"),
            ("CIFAR-100", "bf16"),
            ("CIFAR-100", "fp32"),
            ("Tiny ImageNet", "bf16"),
            ("Tiny ImageNet", "fp32"),
        ),
        samples=3,
        compile_seconds=60.0,
        experts=ExpertWork(images=10_000, classes=100, size=32, width=128, depth=3, batch=256),
        at_once=(1, 2, 4, 8, 16),
        networks=Work(
            device="cuda", networks=3, epochs=5, images=1000, classes=100, channels=3, size=32, depth=3, width=128
        ),
        shared=(replace(cifar100, steps=4), replace(cifar100, images=100, batch=100, steps=10)),
        processes=(1, 2, 4),
        share_seconds=2.0,
        headline=HeadlineWork(made_each=100, least_seconds=45.0),
    )


def cpu_sizes() -> Sizes:
    """Return sizes with which every part runs on a CPU core in seconds."""
    cifar100 = MatchingProblem(
        images=20, classes=10, size=32, width=16, depth=2, steps=2, batch=20, families=catalog.ALL_FAMILIES
    )
    tiny = replace(cifar100, size=64, batch=10)
    return Sizes(
        shares=Shares(
            machine=0.1, correctness=0.25, gradient=0.48, experts=0.58, networks=0.65, sharing=0.78, headline=0.98
        ),
        check=MatchingProblem(images=8, classes=4, size=8, width=8, depth=2, steps=2, batch=6, alpha=0.3),
        settings={"CIFAR-100, cut": cifar100, "Tiny ImageNet, cut": tiny},
        precisions=("fp32", "bf16"),
        compiled=(("CIFAR-100, cut", "fp32"),),
        samples=3,
        compile_seconds=15.0,
        experts=ExpertWork(images=200, classes=10, size=32, width=16, depth=3, batch=32),
        at_once=(1, 2),
        networks=Work(
            device="cpu", networks=2, epochs=2, images=40, classes=10, channels=3, size=32, depth=3, width=16
        ),
        shared=(cifar100,),
        processes=(1, 2),
        share_seconds=0.5,
        headline=HeadlineWork(
            made_each=20,
            least_seconds=10.0,
            options=(
                *("--classes", "5", "--width", "8", "--experts", "2", "--iterations", "20", "--networks", "1"),
                *("--set", "N=3", "--set", "M=1", "--set", "T_width=3", "--set", "T_growth=0", "--set", "batch_syn=25"),
                *("--set", "expert_batch_size=16"),
            ),
        ),
    )


def _paper(dataset: str) -> MatchingProblem:
    """Return the size of M-DATM's setting for a dataset; every inner step sees a batch, all families are drawn."""
    facts, (_, values) = catalog.facts(dataset), settings_of(dataset, IPC)
    return MatchingProblem(
        images=IPC * facts.classes,
        classes=facts.classes,
        size=facts.image_size,
        width=values["net_width"],
        depth=values["net_depth"],
        steps=values["N"],
        batch=values["batch_syn"],
        families=facts.augmentation,
    )
