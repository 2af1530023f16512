"""The two ways of the weights' term in a double backward are the term that PyTorch computes."""

import torch
import torch.nn.functional as F

from benchmarks.device.gradients import ordinary_term, wide_term
from trainables.seeding import generator


def test_both_ways_are_the_second_derivative_that_autograd_computes() -> None:
    draws = generator("weight term")
    x, x_bar = (torch.randn(5, 3, 6, 6, dtype=torch.float64, generator=draws) for _ in range(2))
    along = torch.randn(5, 4, 6, 6, dtype=torch.float64, generator=draws)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=draws, requires_grad=True)
    x.requires_grad_()
    (of_x,) = torch.autograd.grad(F.conv2d(x, weight, padding=1), x, along, create_graph=True)
    (expected,) = torch.autograd.grad((of_x * x_bar).sum(), weight)
    for term in (wide_term, ordinary_term):
        torch.testing.assert_close(term(x_bar, along), expected, rtol=1e-12, atol=1e-12)
