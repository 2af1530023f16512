"""scikit-learn's 8×8 digits, 1 image per class: what hard labels and an early range add to DATM, in minutes."""

from search_spaces.presets import preset
from search_spaces.registered.digits import SPACE as DIGITS
from search_spaces.study import Study
from search_spaces.vocabulary import matching_range

SOFT = {key: preset("datm").rules[key] for key in ("label_mode", "lr_label")}
HARD = {key: preset("m_datm").rules[key] for key in ("label_mode", "lr_label")}

SPACE = Study(
    name="digits_ablation",
    title="What do hard labels and an early range add to DATM at 1 image per class?",
    dataset="digits",
    reference="our own reference, not the paper's: DATM's soft labels and a range that is not early",
    parameters=DIGITS.pinned(),
    variants={
        "datm": {**SOFT, **matching_range(8, 14, 16)},
        "datm_hard": {**HARD, **matching_range(8, 14, 16)},
        "m_datm": {**HARD, **matching_range(0, 6, 8)},
    },
)
