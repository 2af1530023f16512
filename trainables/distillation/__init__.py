"""Distillation: trajectory, distribution and gradient matching."""
