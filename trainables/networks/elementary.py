"""The ConvNet written out in elementary operations on images in channels-last layout, for `torch.compile`.

`ConvNet.logits` is the definition, and runs uncompiled: it calls a library kernel for every layer, and a compiler
cannot fuse the second derivatives of such kernels. Here the same network is built from sums, products and matrix
products. Their first and second derivatives are of the same kind, so a compiler merges the norm, the activation and the
pooling of all passes into few loops.

On a CPU a convolution uses Winograd's algorithm, F(2×2, 3×3): 2.25 times fewer multiplications than the library, which
has no such kernel for float32. It is equally exact, to a few units in the last place (Lavin & Gray, arXiv 1509.09308,
§4.1).

Shape legend: B images, ch or K_in channels in, K channels out, H = W side, C classes, P parameters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.networks.convnet import ConvNet
from trainables.networks.layers import NORM_EPSILON

__all__ = ["explicit_logits", "unfolded_convolution", "winograd_convolution"]

_G = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
_KERNEL_TRANSFORM = torch.kron(_G, _G)
"""Transforms a 3×3 kernel, flattened by rows, into Winograd's space: G g Gᵀ, [16, 9]."""
FEWEST_WINOGRAD_CHANNELS = 16
"""Input channels from which the 16 small matrix products of a tile are faster than one of unfolded patches."""


def explicit_logits(network: ConvNet, theta: Tensor, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits [B, C] that `network.logits` returns, for parameters [P] and images [B, ch, H, W].

    Args:
        network: The network.
        theta: Parameters, float32 or float64.
        images: Images of the same dtype.
        dtype: The dtype of convolutions and the linear layer; norm, activation and pooling use theta's.
    """
    parameters = network.unflatten(theta)
    x = images.permute(0, 2, 3, 1)
    for block in range(network.depth):
        x = _convolution(x, parameters[f"conv{block}.weight"], parameters[f"conv{block}.bias"], dtype)
        x = F.relu(_instance_norm(x, parameters[f"norm{block}.weight"], parameters[f"norm{block}.bias"]))
        x = _average_pool(x)
    features = x.permute(0, 3, 1, 2).flatten(1).to(dtype)
    return F.linear(features, parameters["linear.weight"].to(dtype)).to(theta.dtype) + parameters["linear.bias"]


def _convolution(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """3×3 convolution with padding 1, [B, H, W, K_in] → [B, H, W, K], by the algorithm that suits device and shape."""
    if x.device.type == "cpu" and dtype == x.dtype:
        if weight.shape[1] < FEWEST_WINOGRAD_CHANNELS:
            return unfolded_convolution(x, weight) + bias
        if x.shape[1] % 2 == 0:
            return winograd_convolution(x, weight) + bias
    channels_first = F.conv2d(x.permute(0, 3, 1, 2).to(dtype), weight.to(dtype), padding=1)
    return channels_first.permute(0, 2, 3, 1).to(bias.dtype) + bias


def unfolded_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """3×3 convolution with padding 1 as one product of unfolded patches, [B, H, W, K_in] → [B, H, W, K]."""
    height, width = x.shape[1:3]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    patches = torch.cat([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], dim=3)
    return patches @ weight.permute(2, 3, 1, 0).reshape(patches.shape[3], -1)


def winograd_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """3×3 convolution with padding 1 by Winograd's F(2×2, 3×3), [B, H, W, K_in] → [B, H, W, K]; H and W even.

    Tiles of 4×4 pixels, two apart, and the kernel are transformed into a space where 16 products replace 36.
    """
    batch, height, width, inputs = x.shape
    rows, columns = height // 2, width // 2
    padded = F.pad(x, (0, 0, 1, 1, 1, 1)).view(batch, rows + 1, 2, width + 2, inputs)
    tiles = []
    for line in _input_transform(padded, 1):
        tiles += _input_transform(line.view(batch, rows, columns + 1, 2, inputs), 2)
    # One matrix product for both sides of G g Gᵀ: gathering single taps from 3×3 kernels would be slower.
    kernels = (_KERNEL_TRANSFORM.to(weight) @ weight.reshape(-1, 9).T).view(16, -1, inputs)
    products = torch.bmm(torch.stack(tiles).reshape(16, batch * rows * columns, inputs), kernels.transpose(1, 2)).view(
        4, 4, batch, rows, columns, -1
    )
    lines = [torch.stack(_output_transform(list(line)), dim=3) for line in _output_transform(list(products))]
    return torch.stack(lines, dim=2).reshape(batch, height, width, -1)


def _input_transform(pairs: Tensor, dim: int) -> list[Tensor]:
    """Bᵀd: the lines d0 to d3 of a tile are two neighbouring pairs; pairs along `dim`, their lines along the next."""
    even, odd = pairs.unbind(dim + 1)
    count = even.shape[dim] - 1
    d0, d2 = even.narrow(dim, 0, count), even.narrow(dim, 1, count)
    d1, d3 = odd.narrow(dim, 0, count), odd.narrow(dim, 1, count)
    return [d0 - d2, d1 + d2, d2 - d1, d1 - d3]


def _output_transform(m: list[Tensor]) -> list[Tensor]:
    """Aᵀm: the two output lines of a tile's four."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each image's channels to mean 0 and variance 1 (biased), then scaled and shifted; x is [B, H, W, K]."""
    centred = x - x.mean(dim=(1, 2), keepdim=True)
    variance = centred.square().mean(dim=(1, 2), keepdim=True)
    return centred * torch.rsqrt(variance + NORM_EPSILON) * weight + bias


def _average_pool(x: Tensor) -> Tensor:
    """Mean of each 2×2 pixels, [B, H, W, K] → [B, H // 2, W // 2, K]; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    even = x[:, : 2 * rows, : 2 * columns]
    return even.reshape(batch, rows, 2, columns, 2, channels).mean(dim=(2, 4))
