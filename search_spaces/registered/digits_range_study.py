"""scikit-learn's 8×8 digits, 1 image per class: early, medium and late matching ranges side by side, in minutes."""

from search_spaces.registered.digits import SPACE as DIGITS
from search_spaces.space import Fixed
from search_spaces.study import Study
from search_spaces.vocabulary import matching_range

SPACE = Study(
    name="digits_range_study",
    title="Which part of the experts' training suits so small a set: early, medium or late?",
    dataset="digits",
    reference="our own reference, not the paper's: the early range; M-DATM has no setting for the digits",
    parameters={
        **DIGITS.pinned(),
        "alpha_init": Fixed(0.02, source="at 0.05 the late range starts at losses of 14, which are skipped"),
        "lr_pixel": Fixed(10.0, source="at 30 the late range's images are less accurate on validation"),
        "iterations": Fixed(450, source="harder patterns need more of them"),
    },
    variants={
        "early": matching_range(0, 6, 8),
        "medium": matching_range(8, 14, 16),
        "late": matching_range(16, 21, 23),
    },
)
