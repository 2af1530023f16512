"""How long work takes on a CPU core or a GPU: arithmetic, memory traffic and calls.

A step is a sequence of kernels. Its convolutions wait for arithmetic and all others for memory, so the times add up:
operations / rate + bytes / bandwidth. A small step waits for its calls.

The CPU core was measured. No GPU was: the rates are those of NVIDIA's data sheets, of which kernels reach a share.
"""

from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.planning.work import NetworkCost, Work

__all__ = [
    "COMPILATION_SAVES",
    "CPU_CORE",
    "GPUS",
    "SHARE_REACHED",
    "CpuCore",
    "Gpu",
    "Multiplying",
    "Times",
    "gpu_name",
]

TRAINING_TRAFFIC = 17
"""Bytes that a step of training reads and writes, as a multiple of the bytes that its convolutions put out."""
MATCHING_TRAFFIC, COMPILED_TRAFFIC, COMPILED_BF16_TRAFFIC = 120, 77, 65
"""The same for an inner step with its derivatives: uncompiled, and compiled in float32 and in bf16."""
TRAINING_CALLS, MATCHING_CALLS, COMPILED_CALLS = 40, 165, 63
"""Calls of a step for every block of the network: its kernels, and what Python does around them."""
COMPILATION_SAVES = 0.45
"""Share of an uncompiled inner step's time that compiling saves on a CPU: benchmarks/RESULTS.md."""
SHARE_REACHED = (0.85, 0.6)
"""Share of the data sheet's rates for the low and the high estimate of a GPU's time: assumed."""


@dataclass(frozen=True, kw_only=True)
class Multiplying:
    """How inner steps multiply."""

    precision: str = "fp32"
    """fp32, tf32 or bf16."""
    compiled: bool = False

    @property
    def traffic(self) -> int:
        """Traffic of an inner step with its derivatives, in its convolutions' outputs."""
        if not self.compiled:
            return MATCHING_TRAFFIC
        return COMPILED_BF16_TRAFFIC if self.precision == "bf16" else COMPILED_TRAFFIC


@dataclass(frozen=True, kw_only=True)
class Times:
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
        """Return the seconds of some work, in float32.

        Args:
            work: The work.
            network: The network of its steps.
            compiled: Whether inner steps are compiled.
        """
        trained = _times(self, Work(trained=work.trained, training_steps=work.training_steps, whitened=work.whitened),
                         network, Multiplying(), self.operations_per_s)  # fmt: skip
        matched = _times(self, Work(matched=work.matched, matching_steps=work.matching_steps),
                         network, Multiplying(), self.operations_per_s)  # fmt: skip
        share = 1 - COMPILATION_SAVES if compiled else 1.0
        return sum(
            part * (times.arithmetic_s + times.memory_s + times.calls_s)
            for part, times in ((1.0, trained), (share, matched))
        )


CPU_CORE = CpuCore(operations_per_s=1.2e11, bytes_per_s=8e9, call_s=1.35e-5)
"""One of two x86 cores: fitted to steps of nine networks, 8 to 64 pixels a side and 16 to 128 wide, all of which it
meets within a third; benchmarks/RESULTS.md, "What a plan assumes"."""


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

    def times(self, work: Work, network: NetworkCost, how: Multiplying) -> Times:
        """Return the seconds of some work at the data sheet's rates.

        Args:
            work: The work.
            network: The network of its steps.
            how: How inner steps multiply; all other steps are in float32.

        Raises:
            ValueError: The GPU does not have the precision: see `has`.
        """
        rate = self._rate(how.precision)
        if rate is None:
            raise ValueError(f"this GPU has no {how.precision}")
        return _times(self, work, network, how, rate)

    def _rate(self, precision: str) -> float | None:
        return {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16}[precision]

    def seconds(self, work: Work, network: NetworkCost, how: Multiplying) -> tuple[float, float]:
        """Return a low and a high estimate; calls run ahead of the GPU, so only the longer of both counts."""
        times = self.times(work, network, how)
        low, high = (max(times.arithmetic_s + times.memory_s, times.calls_s) / share for share in SHARE_REACHED)
        return low, high

    def binding(self, work: Work, network: NetworkCost, how: Multiplying) -> str:
        """Return what takes most of the time: arithmetic, memory or calls."""
        times = self.times(work, network, how)
        if times.calls_s > times.arithmetic_s + times.memory_s:
            return "calls"
        return "arithmetic" if times.arithmetic_s > times.memory_s else "memory"


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


def _times(device: CpuCore | Gpu, work: Work, network: NetworkCost, how: Multiplying, matching_rate: float) -> Times:
    """Return the seconds of work on a device, whose inner steps multiply at a rate of their own."""
    rate = device.operations_per_s if isinstance(device, CpuCore) else device.fp32
    training = Work(trained=work.trained, whitened=work.whitened).operations(network)
    matching = Work(matched=work.matched).operations(network)
    calls = COMPILED_CALLS if how.compiled else MATCHING_CALLS
    return Times(
        arithmetic_s=training / rate + matching / matching_rate,
        memory_s=4 * network.outputs * (TRAINING_TRAFFIC * work.trained + how.traffic * work.matched)
        / device.bytes_per_s,
        calls_s=network.depth * device.call_s * (TRAINING_CALLS * work.training_steps + calls * work.matching_steps),
    )  # fmt: skip
