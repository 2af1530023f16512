"""Derivatives of one inner step: the gradient of a chunk's loss, and the products that the adjoint needs.

Shape legend: B images of a chunk, b of a micro-batch, C classes, P parameters.

The loss of a chunk is −Σ_i Σ_c q_ic log softmax(f(x_i))_c, where row q_i is the image's label distribution divided by
B: one-hot for hard labels, the softmax for soft labels. The network normalises each image alone, so a chunk may be
split into micro-batches whose derivatives add up to the chunk's.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from torch.func import grad, grad_and_value, jvp

from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.networks.elementary import explicit_logits
from trainables.networks.layers import PLAIN, Layers, second_order_layers
from trainables.networks.network import Network

__all__ = ["PRECISIONS", "InnerStep", "KeptStep", "Products"]

PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16}
"""Dtype in which convolutions and linear layers multiply; None: that of the parameters, which tf32 rounds inside."""


Products = tuple[Tensor, Tensor, Tensor, Tensor]
"""The derivatives of s = ⟨∇_θ loss, λ⟩: ∂s/∂θ [P], ∂s/∂images [B, ch, H, W], ∂s/∂targets [B, C], and s."""


class InnerStep:
    """The derivatives of a chunk's loss, in micro-batches, compiled or not.

    Uncompiled, every layer is one library kernel, and second derivatives are reverse over reverse. Compiled, the
    network is written as elementary operations, and second derivatives are forward under reverse. On a CPU, each was
    the faster choice for its case, benchmarks/RESULTS.md. A compiled step always sees micro-batches of one size. The
    last one is padded with images of weight 0, so that no change of N, M, T, chunk size or kind of labels recompiles.
    """

    def __init__(
        self, network: Network, *, precision: str = "fp32", compiled: bool = False, micro_batch: int | None = None
    ) -> None:
        """Prepare; nothing is compiled before the first call.

        Args:
            network: The network.
            precision: A name of `PRECISIONS`; what tf32 changes is the process's, see `use_arithmetic`.
            compiled: Whether to compile.
            micro_batch: Largest number of images at a time; None: a whole chunk.

        Raises:
            ConfigError: The precision is unknown, a compiled step has no micro-batch size, or the network has no
                compiled or bf16 form.
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is one of {', '.join(PRECISIONS)}, not {precision}")
        if compiled and micro_batch is None:
            raise ConfigError("a compiled step needs a micro-batch size; choose one of at most a chunk's images")
        if (compiled or PRECISIONS[precision] is not None) and type(network) is not ConvNet:
            raise ConfigError(
                f"only a ConvNet's step can be compiled or computed in bf16, not that of {type(network).__name__}; "
                "set compile to off and precision to fp32 or tf32"
            )
        self.network = network
        self.precision = precision
        self.compiled = compiled
        self.micro_batch = micro_batch
        self._dtype = PRECISIONS[precision]
        self._gradient: Callable[..., Tensor] = self._eager_gradient
        self._products: Callable[..., Products] = self._eager_products
        if compiled:
            _ = network.layout, network.sizes  # computed now: the compiler does not follow a cached property's lock
            self._gradient = _Compiled(self._explicit_gradient)
            self._products = _Compiled(self._explicit_products)

    @property
    def _convnet(self) -> ConvNet:
        """The network as a ConvNet, the only class with an elementary form."""
        assert type(self.network) is ConvNet, "refused at construction"
        return self.network

    def loss(self, theta: Tensor, images: Tensor, targets: Tensor, layers: Layers = PLAIN) -> Tensor:
        """Return the loss of images [B, ch, H, W] with weighted label distributions [B, C]; differentiable in all.

        `layers` are a ConvNet's, see `second_order_layers`; other networks, and bf16, have one implementation.
        """
        if self._dtype is not None:
            logits = explicit_logits(self._convnet, theta, images, self._dtype)
        elif type(self.network) is ConvNet:
            logits = self.network.logits(theta, images, layers)
        else:
            logits = self.network.logits(theta, images)
        return -(targets * F.log_softmax(logits, dim=1)).sum()

    def gradient(self, theta: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        """Return ∇_θ loss, [P]."""
        total = torch.zeros_like(theta)
        for piece, weighted, _ in self._pieces(images, targets):
            total += self._gradient(theta, piece, weighted)
        return total

    def kept(self, theta: Tensor, images: Tensor, targets: Tensor, *, curvature: bool = True) -> "KeptStep":
        """Return the gradient of `gradient` together with its graph, from which the products follow.

        The gradient of a ConvNet is the same bits. Arguments as in `products`.

        Raises:
            ConfigError: The step is compiled: its second derivatives do not start from the gradient's graph.
        """
        if self.compiled:
            raise ConfigError("a compiled step keeps no graphs; compute its products anew")
        graphs = [
            self._graph(theta, piece, weighted, curvature) for piece, weighted, _ in self._pieces(images, targets)
        ]
        total = torch.zeros_like(theta)
        for graph in graphs:
            total += graph.gradient.detach()
        return KeptStep(total, graphs)

    def products(
        self, theta: Tensor, images: Tensor, targets: Tensor, adjoint: Tensor, *, curvature: bool = True
    ) -> Products:
        """Return the derivatives of s = ⟨∇_θ loss, λ⟩.

        Args:
            theta: [P].
            images: [B, ch, H, W].
            targets: [B, C].
            adjoint: λ, [P].
            curvature: Whether to compute ∂s/∂θ, a Hessian-vector product; if not, it is returned as zeros.
        """
        pieces = self._pieces(images, targets)
        return _joined(
            adjoint,
            ((self._products(theta, piece, weighted, adjoint, curvature), count) for piece, weighted, count in pieces),
        )

    def _pieces(self, images: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield micro-batches and their numbers of images, without the padding of weight 0 of a compiled step."""
        size = self.micro_batch or len(images)
        for piece, weighted in zip(images.split(size), targets.split(size), strict=True):
            count = len(piece)
            if self.compiled and count < size:
                yield (
                    torch.cat([piece, piece[:1].expand(size - count, -1, -1, -1)]),
                    F.pad(weighted, (0, 0, 0, size - count)),
                    count,
                )
            else:
                yield piece, weighted, count

    def _eager_gradient(self, theta: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        leaf = theta.detach().requires_grad_()
        return torch.autograd.grad(self.loss(leaf, images, targets), leaf)[0]

    def _graph(self, theta: Tensor, images: Tensor, targets: Tensor, curvature: bool) -> "_Graph":
        theta, images, targets = (tensor.detach().requires_grad_() for tensor in (theta, images, targets))
        loss = self.loss(theta, images, targets, second_order_layers(theta.device, curvature=curvature))
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        return _Graph(theta, images, targets, gradient, curvature)

    def _eager_products(
        self, theta: Tensor, images: Tensor, targets: Tensor, adjoint: Tensor, curvature: bool
    ) -> Products:
        return self._graph(theta, images, targets, curvature).products(adjoint)

    def _explicit_loss(self, theta: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        logits = explicit_logits(self._convnet, theta, images, self._dtype or theta.dtype)
        return -(targets * F.log_softmax(logits, dim=1)).sum()

    def _explicit_gradient(self, theta: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        gradient: Tensor = grad(self._explicit_loss)(theta, images, targets)
        return gradient

    def _explicit_products(
        self, theta: Tensor, images: Tensor, targets: Tensor, adjoint: Tensor, curvature: bool
    ) -> Products:
        def along(theta: Tensor, images: Tensor, targets: Tensor) -> Tensor:
            def at(point: Tensor) -> Tensor:
                return self._explicit_loss(point, images, targets)

            derivative: Tensor = jvp(at, (theta,), (adjoint,))[1]
            return derivative

        if curvature:
            (u, v, r), value = grad_and_value(along, argnums=(0, 1, 2))(theta, images, targets)
            return u, v, r, value
        (v, r), value = grad_and_value(along, argnums=(1, 2))(theta, images, targets)
        return torch.zeros_like(theta), v, r, value


class _Graph(NamedTuple):
    """The gradient [P] of a micro-batch's loss, differentiable in what it was computed from."""

    theta: Tensor
    images: Tensor
    targets: Tensor
    gradient: Tensor
    curvature: bool

    def products(self, adjoint: Tensor) -> Products:
        """Return the micro-batch's products, and free the graph."""
        value = torch.dot(self.gradient, adjoint)
        if self.curvature:
            u, v, r = torch.autograd.grad(value, (self.theta, self.images, self.targets))
        else:
            u = torch.zeros_like(self.theta)
            v, r = torch.autograd.grad(value, (self.images, self.targets))
        return u, v, r, value.detach()


class KeptStep:
    """A chunk's gradient and the graphs of its micro-batches, from which its products follow without them."""

    def __init__(self, gradient: Tensor, graphs: Sequence[_Graph]) -> None:
        self.gradient = gradient
        """∇_θ loss, [P], without a graph."""
        self._graphs = list(graphs)

    def products(self, adjoint: Tensor) -> Products:
        """Return what `InnerStep.products` returns for this chunk and λ = `adjoint` [P]; only once: it frees memory."""
        graphs, self._graphs = self._graphs, []
        return _joined(adjoint, ((graph.products(adjoint), len(graph.images)) for graph in graphs))


def _joined(adjoint: Tensor, pieces: Iterable[tuple[Products, int]]) -> Products:
    """Return a chunk's products, from those of its micro-batches and their numbers of images without padding."""
    along_theta, value = torch.zeros_like(adjoint), adjoint.new_zeros(())
    along_images, along_targets = [], []
    for (u, v, r, s), count in pieces:
        along_theta += u
        value += s
        along_images.append(v[:count])
        along_targets.append(r[:count])
    return along_theta, torch.cat(along_images), torch.cat(along_targets), value


class _Compiled:
    """A function that is compiled at its first call, by one process of a node at a time.

    The other processes then read it from the compiler's disk cache, which all processes of a user on a node share.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = torch.compile(function, dynamic=False, fullgraph=True)
        self._ready = False

    def __call__(self, *arguments: Any) -> Any:
        if self._ready:
            return self._function(*arguments)
        cache = Path(
            os.environ.get("TORCHINDUCTOR_CACHE_DIR", "") or torch._inductor.runtime.cache_dir_utils.cache_dir()
        )
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "compiling.lock"):
            result = self._function(*arguments)
        self._ready = True
        return result
