"""Sources of keys and values: the sections of docs/method.md."""

__all__ = [
    "CHALLENGE_PROTOCOL",
    "CORESETS",
    "DC",
    "DISTILLATION",
    "DM",
    "DSA",
    "EXPERTS",
    "LABELS",
    "LABEL_REGIMES",
    "MATCHING_GRADIENT",
    "MATCHING_RANGE",
    "NORMALISATION",
    "PUBLISHED_SETTINGS",
    "REVIEW",
    "SRE2L",
]

EXPERTS = 'docs/method.md, "Experts"'
NORMALISATION = 'docs/method.md, "Normalisation"'
DISTILLATION = 'docs/method.md, "Distillation"'
MATCHING_RANGE = 'docs/method.md, "Matching range"'
LABELS = 'docs/method.md, "Initial images and soft labels"'
MATCHING_GRADIENT = 'docs/method.md, "Matching gradient"'
PUBLISHED_SETTINGS = 'docs/method.md, "Published settings"'
CHALLENGE_PROTOCOL = 'docs/method.md, "Challenge protocol"'
DSA = 'docs/method.md, "DSA"'
LABEL_REGIMES = 'docs/method.md, "Label regimes"'
CORESETS = 'docs/method.md, "Coresets"'
SRE2L = 'docs/method.md, "SRe2L"'
DC = 'docs/method.md, "DC"'
DM = 'docs/method.md, "DM"'
REVIEW = 'docs/method.md, "What a review asks for"'
