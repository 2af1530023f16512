"""scikit-learn's 8×8 digits: every method at 1, 5 and 10 images per class, with hard and soft labels, in minutes."""

from search_spaces.comparison import Comparison
from search_spaces.registered.digits_range_study import SPACE as STUDY
from search_spaces.sources import LABEL_REGIMES, REVIEW
from search_spaces.space import Fixed

MEASURED = "ours, validation accuracy within some ten seconds of a core"

SPACE = Comparison(
    name="digits_regimes",
    title="What must a distilled set beat, and what do soft labels hide?",
    dataset="digits",
    reference="our own settings of DM, DC and M-DATM, not the papers': they have none for the digits",
    parameters={
        **{key: value for key, value in STUDY.parameters.items() if key not in ("trials", "first_rung_iterations")},
        "N": Fixed(10, source="ours: half of the range study's, with twice its alpha, validates as well"),
        "alpha_init": Fixed(0.04, source="ours: see N"),
        "ipcs": Fixed("1,5,10", source="ours"),
        "validation_networks": Fixed(1, source="ours: el2n_best alone validates, ten windows a set"),
        "validation_epochs": Fixed(150, source="ours: see validation_networks"),
        "regimes": Fixed("all", source=f"HT, {LABEL_REGIMES}"),
        "repeats": Fixed(5, source=REVIEW),
        "iterations": Fixed(120, source=MEASURED),
        "validation_every_iterations": Fixed(30, source="ours"),
    },
    variants={
        "dm": {"method": "distribution", "batch_real": 32, "lr_pixel": 10.0, "iterations": 100},
        "dc": {"method": "gradient", "batch_real": 32, "lr_pixel": 0.2, "iterations": 15},
        "m_datm": {"method": "trajectory", "lr_pixel": 30.0, "iterations": 120},
    },
)
