"""How long work takes on a CPU core or a GPU: arithmetic, memory traffic and calls.

A step is a sequence of kernels. Its convolutions wait for arithmetic and all others for memory, so the times add up:
operations / rate + bytes / bandwidth. A small step waits for its calls.

The CPU core was measured. No GPU was: the rates are those of NVIDIA's data sheets, of which kernels reach a share.
"""

from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.planning.work import MATCHING_PASSES, TRAINING_PASSES, NetworkCost, Work

__all__ = [
    "COMPILATION_SAVES", "COMPILED", "COMPILED_BF16", "CPU_CORE", "GPUS", "MATCHING", "MATCHING_KEPT", "SHARE_REACHED",
    "TRAINING", "CpuCore", "Gpu", "Multiplying", "StepCost", "gpu_name",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a kind of step costs, counted from its kernels."""

    passes: int
    """Its arithmetic, in forward passes."""
    traffic: int
    """Bytes that it reads and writes, as a multiple of the bytes that its convolutions put out."""
    calls: int
    """Calls for every block of the network: its kernels, and what Python does around them."""


TRAINING = StepCost(passes=TRAINING_PASSES, traffic=17, calls=40)
MATCHING = StepCost(passes=MATCHING_PASSES, traffic=98, calls=165)
"""An inner step with its derivatives, not compiled, whose gradient is computed twice."""
MATCHING_KEPT = StepCost(passes=MATCHING_PASSES - TRAINING_PASSES, traffic=83, calls=140)
"""The same where memory suffices to keep the gradient's graph."""
COMPILED = StepCost(passes=MATCHING_PASSES, traffic=77, calls=63)
COMPILED_BF16 = StepCost(passes=MATCHING_PASSES, traffic=65, calls=63)
"""The same compiled in bf16: what is added up stays float32."""
COMPILATION_SAVES = 0.3
"""Share of the time of an inner step with kept graphs that compiling saves on a CPU: benchmarks/RESULTS.md."""
SHARE_REACHED = (0.85, 0.6)
"""Share of the data sheet's rates for the low and the high estimate of a GPU's time: assumed."""


@dataclass(frozen=True, kw_only=True)
class _Times:
    """Seconds of some work, by what they are spent on."""

    arithmetic_s: float
    memory_s: float
    calls_s: float


@dataclass(frozen=True, kw_only=True)
class CpuCore:
    """A core of a CPU, which waits for one thing after the other."""

    operations_per_s: float
    bytes_per_s: float
    call_s: float

    def seconds(self, work: Work, network: NetworkCost, *, compiled: bool = False) -> float:
        """Return the seconds of some work in float32, whose inner steps keep their graphs.

        Args:
            work: The work.
            network: The network of its steps.
            compiled: Whether inner steps are compiled.
        """
        training, matching = _parts(work)
        times = _times(self, training, TRAINING, network, self.operations_per_s)
        matched = _times(self, matching, MATCHING_KEPT, network, self.operations_per_s)
        share = 1 - COMPILATION_SAVES if compiled else 1.0
        return _added(times) + share * _added(matched)


CPU_CORE = CpuCore(operations_per_s=1.2e11, bytes_per_s=8e9, call_s=1.35e-5)
"""One of two x86 cores: fitted to steps of nine networks, 8 to 64 pixels a side and 16 to 128 wide, all of which it
meets within a third; benchmarks/RESULTS.md, "What a plan assumes"."""


@dataclass(frozen=True, kw_only=True)
class Multiplying:
    """How a GPU multiplies in a sweep."""

    precision: str = "fp32"
    """tf32: in all steps. bf16: in inner steps, and all others are in fp32."""
    compiled: bool = False
    """Whether inner steps are compiled."""

    @property
    def step(self) -> StepCost:
        """An inner step with its derivatives; that a large memory keeps graphs is left out."""
        if not self.compiled:
            return MATCHING
        return COMPILED_BF16 if self.precision == "bf16" else COMPILED


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU by its data sheet, without sparsity."""

    fp32: float
    """Operations a second in float32."""
    tf32: float | None
    """In TF32; None: it has none, and neither bf16."""
    bf16: float | None
    bytes_per_s: float
    memory_bytes: float
    call_s: float = 8e-6
    """Seconds until the processor has called a kernel: assumed."""

    def has(self, precision: str) -> bool:
        """Return whether it multiplies in a precision: fp32, tf32 or bf16."""
        return self._rate(precision) is not None

    def seconds(self, work: Work, network: NetworkCost, how: Multiplying) -> tuple[float, float]:
        """Return a low and a high estimate; calls run ahead of the GPU, so only the longer of both counts.

        Args:
            work: The work.
            network: The network of its steps.
            how: How the GPU multiplies.

        Raises:
            ValueError: The GPU does not have the precision: see `has`.
        """
        times = self._times(work, network, how)
        low, high = (max(times.arithmetic_s + times.memory_s, times.calls_s) / share for share in SHARE_REACHED)
        return low, high

    def binding(self, work: Work, network: NetworkCost, how: Multiplying) -> str:
        """Return what takes most of the time: arithmetic, memory or calls; arguments as for `seconds`."""
        times = self._times(work, network, how)
        if times.calls_s > times.arithmetic_s + times.memory_s:
            return "calls"
        return "arithmetic" if times.arithmetic_s > times.memory_s else "memory"

    def _rate(self, precision: str) -> float | None:
        return {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16}[precision]

    def _times(self, work: Work, network: NetworkCost, how: Multiplying) -> _Times:
        rate = self._rate(how.precision)
        if rate is None:
            raise ValueError(f"this GPU has no {how.precision}")
        training, matching = _parts(work)
        around = _times(self, training, TRAINING, network, self.fp32 if how.precision == "bf16" else rate)
        inner = _times(self, matching, how.step, network, rate)
        return _Times(
            arithmetic_s=around.arithmetic_s + inner.arithmetic_s,
            memory_s=around.memory_s + inner.memory_s,
            calls_s=around.calls_s + inner.calls_s,
        )


GPUS = {
    "V100": Gpu(fp32=15.7e12, tf32=None, bf16=None, bytes_per_s=0.9e12, memory_bytes=32e9),
    "A100": Gpu(fp32=19.5e12, tf32=156e12, bf16=312e12, bytes_per_s=2.039e12, memory_bytes=80e9),
    "A10G": Gpu(fp32=31.5e12, tf32=35e12, bf16=70e12, bytes_per_s=0.6e12, memory_bytes=24e9),
    "L4": Gpu(fp32=30.3e12, tf32=60e12, bf16=121e12, bytes_per_s=0.3e12, memory_bytes=24e9),
    "RTX 4090": Gpu(fp32=82.6e12, tf32=82.6e12, bf16=165e12, bytes_per_s=1.008e12, memory_bytes=24e9),
    "H100": Gpu(fp32=67e12, tf32=494e12, bf16=989e12, bytes_per_s=3.35e12, memory_bytes=80e9),
    "H200": Gpu(fp32=67e12, tf32=494e12, bf16=989e12, bytes_per_s=4.8e12, memory_bytes=141e9),
}  # fmt: skip
"""By name. Data sheets: NVIDIA V100 (SXM2), A100 (80 GB SXM), L4, H100 (SXM), H200 (SXM); NVIDIA Ada GPU architecture
(RTX 4090); for the A10G, which has no public data sheet, the figures of the EC2 G5 instances."""


def gpu_name(text: str) -> str:
    """Return the name of `GPUS` that a text means, in any case, with or without spaces and hyphens.

    Raises:
        UserError: It means none.
    """

    def letters(name: str) -> str:
        return "".join(filter(str.isalnum, name)).upper()

    names = {letters(name): name for name in GPUS}
    if letters(text) not in names:
        raise UserError(f"--gpu: no GPU is known as {text!r}; known are {', '.join(GPUS)}")
    return names[letters(text)]


def _parts(work: Work) -> tuple[Work, Work]:
    """Return the training and the matching of some work."""
    matching = Work(matched=work.matched, matching_steps=work.matching_steps)
    return work + matching * -1, matching


def _times(device: CpuCore | Gpu, work: Work, step: StepCost, network: NetworkCost, rate: float) -> _Times:
    """Return the seconds of work of one kind, at a rate of operations a second."""
    images, steps = work.trained + work.matched, work.training_steps + work.matching_steps
    return _Times(
        arithmetic_s=(step.passes * images * network.forward + work.whitening(network)) / rate,
        memory_s=4 * network.outputs * step.traffic * images / device.bytes_per_s,
        calls_s=network.depth * step.calls * steps * device.call_s,
    )


def _added(times: _Times) -> float:
    return times.arithmetic_s + times.memory_s + times.calls_s
