"""CIFAR-100, 10 images per class: M-DATM's Fig. 3, early, medium and late matching ranges side by side."""

from search_spaces.presets import RANGE_STUDY
from search_spaces.registered.cifar100_ranges import SPACE as RANGES
from search_spaces.space import Fixed
from search_spaces.study import Study

SPACE = Study(
    name="cifar100_range_study",
    title="Which part of the experts' training suits CIFAR-100 at 10 images per class: early, medium or late?",
    dataset="cifar100",
    reference="M-DATM's own setting for CIFAR-100, 10 images per class: the early range (its paper's Table 1)",
    parameters={**RANGES.pinned(), "horizon_epochs": Fixed(82, source="the largest T_plus + M of the variants")},
    variants=RANGE_STUDY,
)
