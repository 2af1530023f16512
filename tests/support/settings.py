"""Configs of which a test gives what it is about; the rest is what a space gets that leaves it out."""

from dataclasses import fields
from typing import Any, TypeVar

from search_spaces.vocabulary import DEFAULTS
from trainables.config.distillation import DistillationConfig
from trainables.config.experts import ExpertRecipe

__all__ = ["distillation_config", "expert_recipe"]

_Config = TypeVar("_Config", DistillationConfig, ExpertRecipe)


def distillation_config(**settings: Any) -> DistillationConfig:
    """Return a distillation's config; ipc, N, M, the range, learning rates and batch_syn have no defaults."""
    return _build(DistillationConfig, settings)


def expert_recipe(**settings: Any) -> ExpertRecipe:
    """Return an expert's recipe."""
    return _build(ExpertRecipe, settings)


def _build(kind: type[_Config], settings: dict[str, Any]) -> _Config:
    own = {field.name: DEFAULTS[field.name] for field in fields(kind) if field.name in DEFAULTS}
    return kind(**{**own, **settings})
