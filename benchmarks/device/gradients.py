"""The time of one gradient of the matching loss, and of the wide convolutions of its double backward apart."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.device.results import Measurement
from benchmarks.device.timing import require, sample
from benchmarks.matching import MatchingProblem
from benchmarks.measure import use_precision
from trainables.distillation.micro_batches import bytes_per_image
from trainables.seeding import generator

__all__ = ["gradient", "ordinary_term", "weight_term", "wide_term"]

_Term = Callable[[Tensor, Tensor], Tensor]
"""From x̄ [B, K_in, H, W] and ȳ [B, K, H, W] to the term [K, K_in, 3, 3]."""


def gradient(
    name: str,
    problem: MatchingProblem,
    precision: str,
    compile_seconds: float | None,
    keep: bool,
    device: str,
    most: int,
    deadline: float,
) -> Iterator[Measurement]:
    """Measure the exact gradient.

    Args:
        name: Of the setting.
        problem: Its size.
        precision: A name of `PRECISIONS`.
        compile_seconds: What compiling is assumed to take, s; None: not compiled.
        keep: Whether inner steps keep their graphs, as many as a trial would let them.
        device: Where it runs.
        most: The largest number of samples.
        deadline: When all must be done, on the clock of `time.monotonic`.

    Raises:
        TooLittleTime: A sample, or compiling, does not fit.
        ConfigError: The product does not offer the combination.
    """
    where, compiled = torch.device(device), compile_seconds is not None
    if compile_seconds is not None:
        require(compile_seconds, deadline, "compiling")
    use_precision(precision, device)
    matcher = problem.matcher("exact", precision=precision, compiled=compiled, device=where, keep=keep)
    arguments = problem.arguments(where, torch.float32)
    one_step = problem.arguments(where, torch.float32, steps=1)
    taken = sample(
        lambda: matcher(**arguments),
        lambda: matcher(**one_step),
        problem.steps,
        device=device,
        deadline=deadline,
        most=most,
    )
    micro_batch = matcher.step.micro_batch or problem.batch
    note = f"{matcher.kept_steps} of {problem.steps} graphs kept; " if keep else ""
    note += f"micro-batches of {micro_batch}; first step with its adjoint {taken.first_seconds:.2g} s"
    if device == "cuda" and not keep:  # a CPU's peak has the libraries in it
        note += f"; peak {taken.peak_bytes / (micro_batch * bytes_per_image(problem.network)):.1f} × their activations"
    yield Measurement(
        name=f"{name}, {'compiled' if compiled else 'eager'}, {precision}{', graphs kept' if keep else ''}",
        unit="s an iteration",
        samples=taken.seconds,
        peak_bytes=taken.peak_bytes,
        note=note,
    )


def weight_term(
    name: str, problem: MatchingProblem, precision: str, device: str, most: int, deadline: float
) -> Iterator[Measurement]:
    """Measure one term of a double backward, for all convolutions of the network and one micro-batch, in two ways.

    The term is the weights' second derivative along the input's derivative. PyTorch computes it as a convolution whose
    kernel is a whole feature map; it is also the weight gradient of an ordinary convolution.

    Raises:
        TooLittleTime: A sample does not fit.
    """
    where = torch.device(device)
    use_precision(precision, device)
    layers = _layers(problem, where)
    wide = _terms(wide_term, layers)
    for way, term in (("wide convolutions", wide_term), ("ordinary convolutions", ordinary_term)):
        every = partial(_terms, term, layers)
        taken = sample(every, every, 1, device=device, deadline=deadline, most=most)
        apart = max(float((one - other).norm() / other.norm()) for one, other in zip(every(), wide, strict=True))
        yield Measurement(
            name=f"{name}, a weight term by {way}, {precision}",
            unit="s",
            samples=taken.seconds,
            peak_bytes=taken.peak_bytes,
            note=f"{problem.batch} images; relative deviation from the wide {apart:.0e}",
        )


def _terms(term: _Term, layers: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [term(x, along) for x, along in layers]


def _layers(problem: MatchingProblem, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return random x̄ and ȳ of every convolution of the network."""
    draws, inputs, side = generator("benchmark", "weight term"), 3, problem.size
    layers = []
    for _ in range(problem.depth):
        pair = [
            torch.randn(problem.batch, channels, side, side, generator=draws).to(device)
            for channels in (inputs, problem.width)
        ]
        layers.append((pair[0], pair[1]))
        inputs, side = problem.width, side // 2
    return layers


def wide_term(x: Tensor, along: Tensor) -> Tensor:
    """Return the term as PyTorch's double backward computes it: images and channels change places."""
    return F.conv2d(x.transpose(0, 1), along.transpose(0, 1), padding=1).transpose(0, 1)


def ordinary_term(x: Tensor, along: Tensor) -> Tensor:
    """Return the term as the weight gradient of a convolution of x̄ along ȳ."""
    shape = x.new_empty(along.shape[1], x.shape[1], 3, 3)
    ones, zeros = [1, 1], [0, 0]
    term: Tensor = torch.ops.aten.convolution_backward(
        along, x, shape, None, ones, ones, ones, False, zeros, 1, [False, True, False]
    )[1]
    return term
