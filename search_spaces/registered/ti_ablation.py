"""Tiny ImageNet, 10 images per class: M-DATM's Table 2, DATM and what hard labels and an early range add to it."""

from search_spaces.presets import variants
from search_spaces.registered.ti_ranges import SPACE as RANGES
from search_spaces.space import Fixed
from search_spaces.study import Study

# 52 epochs are enough for the matching; DATM takes its soft labels from epoch 100 (--set horizon_epochs=100).
PARAMETERS = {**RANGES.pinned(), "horizon_epochs": Fixed(52, source="the largest T_plus + M of the variants")}

SPACE = Study(
    name="ti_ablation",
    title="What do hard labels and an early range add to DATM on Tiny ImageNet at 10 images per class?",
    dataset="tiny_imagenet",
    reference="DATM's figures for Tiny ImageNet, 10 images per class, in the challenge's setting",
    parameters=PARAMETERS,
    variants=variants(("datm", "datm_hard", "m_datm"), "tiny_imagenet", 10, PARAMETERS),
)
