"""The keys that a space may set: their type, default, rule, meaning and source.

The names are those of the papers; the sources are sections of docs/method.md. T and T_plus are not keys: the range is
drawn as a start and two widths (T = T_minus + T_width, T_plus = T + T_growth), so every draw has them in order.
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from search_spaces.dimensions import SpaceError, Value, is_number, is_whole
from search_spaces.entry import MAKE_SETS, REAL_SETS, Kind
from search_spaces.name_lists import REGIMES, are_sizes, is_list_of
from search_spaces.nearest import nearest
from search_spaces.rules import Plain, Registered, RegisteredSets, Rule, list_text
from search_spaces.sources import (
    CHALLENGE_PROTOCOL,
    CORESETS,
    DC,
    DISTILLATION,
    DM,
    DSA,
    EXPERTS,
    LABEL_REGIMES,
    LABELS,
    MATCHING_GRADIENT,
    MATCHING_RANGE,
    NORMALISATION,
    PUBLISHED_SETTINGS,
    REVIEW,
    SRE2L,
)

__all__ = ["DEFAULTS", "DERIVED", "VOCABULARY", "Key", "key", "matching_range"]

DERIVED = {"T": "T_minus + T_width", "T_plus": "T_minus + T_width + T_growth"}
"""Settings that follow from the keys, with their formulas."""

AUGMENTATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


_ANY = Plain("", lambda _: True)
_AT_LEAST_0 = Plain("of at least 0", lambda value: value >= 0)
_AT_LEAST_1 = Plain("of at least 1", lambda value: value >= 1)
_AT_LEAST_2 = Plain("of at least 2", lambda value: value >= 2)
_POSITIVE = Plain("larger than 0", lambda value: value > 0)
_FRACTION = Plain("of at least 0 and less than 1", lambda value: 0 <= value < 1)
_UP_TO_HALF = Plain("larger than 0 and at most 0.5", lambda value: 0 < value <= 0.5)


def _one_of(*names: str) -> Rule:
    return Plain(f"({' or '.join(names)})", lambda value: value in names)


def _is_augmentation(value: str) -> bool:
    names = value.split("_")
    return value in ("dataset", "none") or (set(names) <= set(AUGMENTATIONS) and len(set(names)) == len(names))


_AUGMENTATION = Plain(
    f"(dataset, none, or different names of {', '.join(AUGMENTATIONS)} joined by _)", _is_augmentation
)


def _is_colour(value: str) -> bool:
    if value == "white" or re.fullmatch("#[0-9a-fA-F]{6}", value):
        return True
    from PIL import ImageColor  # only here: few spaces name another colour

    return value.lower() in ImageColor.colormap


_COLOUR = Plain("(a colour's name, as in CSS, or #rrggbb)", _is_colour)


LARGEST = 1_000_000
"""The largest whole number that a key takes; the largest of the published settings is 20,000. A trial with more steps,
iterations or epochs would not end, and a grid of more points would not fit into memory."""
_LARGEST_SEED = 2**63 - 1


_KINDS: dict[type, tuple[str, Callable[[object], bool]]] = {
    int: ("a whole number", is_whole),
    float: ("a finite number", is_number),
    str: ("a word", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
}


@dataclass(frozen=True)
class Key:
    """One name that a space may set."""

    name: str
    kind: type
    default: Value | None
    """Value in a space that leaves the key out; None: every space must set the key."""
    rule: Rule
    searchable: bool
    """Whether trials of one sweep may differ in it."""
    meaning: str
    source: str
    """Source of the default, or of the key's meaning."""
    words: tuple[str, ...] = ()
    """Words that may stand in the place of a number."""

    def check(self, value: object) -> Value:
        """Return `value` as the key's type.

        Raises:
            SpaceError: if it is of another type or breaks the rule.
        """
        if isinstance(value, str) and value in self.words:
            return value
        kind, fits = _KINDS[self.kind]
        if not fits(value) or not self.rule.holds(value):
            rule = " or ".join([" ".join([kind, self.rule.text]).strip(), *self.words])
            raise SpaceError(f"{self.name} must be {rule}, not {value!r}")
        largest = _LARGEST_SEED if self.name == "expert_seed" else LARGEST
        if self.kind is int and is_whole(value) and value > largest:
            shown = f"{value:,}" if value < 10**30 else "a number of more than 30 digits"
            raise SpaceError(f"{self.name} must be a whole number of at most {largest:,}, not {shown}; lower it")
        checked: Value = self.kind(value)
        return checked

    def parse(self, text: str) -> Value:
        """Return the checked value of `text`, which comes from a command line.

        Raises:
            SpaceError: if it is of another type or breaks the rule.
        """
        text = text.strip()
        value: object = text
        if self.kind is bool:
            # bool("false") is True, so only these two words are accepted.
            value = {"true": True, "false": False}.get(text.lower(), text)
        elif self.kind is not str:
            with contextlib.suppress(ValueError):  # check() reports the rule and the text
                value = self.kind(text)
        return self.check(value)


def _searchable(
    name: str, kind: type, rule: Rule, meaning: str, source: str, default: Value | None = None, *words: str
) -> Key:
    return Key(name, kind, default, rule, True, meaning, source, words)


def _fixed(name: str, kind: type, rule: Rule, meaning: str, source: str, default: Value | None = None) -> Key:
    return Key(name, kind, default, rule, False, meaning, source)


# fmt: off
_KEYS = (
    # Trajectory matching
    _searchable("N", int, _AT_LEAST_1, "steps on the synthetic set, an iteration", DISTILLATION),
    _searchable("M", int, _AT_LEAST_1, "expert epochs matched", DISTILLATION),
    _searchable("T_minus", int, _AT_LEAST_0, "first start epoch", MATCHING_RANGE),
    _searchable("T_width", int, _AT_LEAST_1, "epochs from T_minus to T, the first upper bound", MATCHING_RANGE),
    _searchable("T_growth", int, _AT_LEAST_0, "epochs from T to T_plus, the last upper bound", MATCHING_RANGE),
    _searchable("interval", int, _AT_LEAST_1, "iterations for each +1 of the upper bound", MATCHING_RANGE),
    _searchable("lr_pixel", float, _POSITIVE, "learning rate of the synthetic images", DISTILLATION),
    _searchable("lr_alpha", float, _AT_LEAST_0, "learning rate of α, or of log α; 0 keeps α", DISTILLATION),
    _searchable("alpha_init", float, _POSITIVE,
                "α before the first iteration; auto: that at which N steps on the initial images come nearest experts",
                f"DATM's lr_teacher, {DISTILLATION}", 0.01, "auto"),
    _searchable("alpha_update", str, _one_of("linear", "log"),
                "linear: α is learned itself, as in the papers; log: its logarithm is, so that it stays positive",
                f"the reference codes, {DISTILLATION}", "linear"),
    _searchable("batch_syn", int, _AT_LEAST_1, "synthetic images a step; as many as the set or more: all",
                DISTILLATION),
    _searchable("max_matching_loss", float, _POSITIVE, "updates with a larger loss are skipped",
                f"DATM, {DISTILLATION}", 1.0),
    _searchable("gradient", str, _one_of("exact", "truncated", "unrolled"),
                "of the matching loss: exact adjoint, TESLA's without Hessian products, or the reference codes'",
                f"ours; unrolled is exact too, {MATCHING_GRADIENT}", "exact"),
    # What is matched, and how distributions and gradients are
    _searchable("method", str, Registered(Kind.METHOD),
                "what is matched: experts' trajectories (M-DATM), features (DM) or gradients (DC) of real images",
                f"M-DATM, {DISTILLATION}; DM, {DM}; DC, {DC}", "trajectory"),
    _searchable("batch_real", int, _AT_LEAST_1, "real images of a class an iteration of DM or DC; a smaller class: all",
                f"DM, {DM}", 256),
    _searchable("outer_loop", int, _AT_LEAST_0, "updates of the images that a network of DC meets; 0: as ipc asks",
                f"DC, {DC}", 0),
    _searchable("inner_loop", int, _AT_LEAST_0, "epochs that DC trains a network between them; 0: as ipc asks",
                f"DC, {DC}", 0),
    # Synthetic set
    _searchable("initialization", str, _one_of("correct", "real", "noise"),
                "real images of the class: those that expert 0 classifies correctly first, or any; or noise",
                f"DATM, {LABELS}", "correct"),
    _searchable("label_mode", str, _one_of("hard", "soft"), "hard: default order; soft: DATM's learned labels",
                f"M-DATM, {LABELS}", "hard"),
    _searchable("lr_label", float, _AT_LEAST_0, "learning rate of soft labels; 0 keeps them", DISTILLATION, 0.0),
    _searchable("ema_decay", float, _FRACTION, "FTD's moving average of the images; 0: off",
                f"M-DATM does not average, {DISTILLATION}", 0.0),
    # Distillation
    _fixed("ipc", int, _AT_LEAST_1, "images per class", PUBLISHED_SETTINGS),
    _fixed("iterations", int, _AT_LEAST_1, "iterations of one distillation", f"DATM, {DISTILLATION}", 10_000),
    _fixed("momentum_pixel", float, _FRACTION, "momentum of the images' SGD", f"DATM, {DISTILLATION}", 0.5),
    _fixed("momentum_alpha", float, _FRACTION, "momentum of α's SGD", f"DATM, {DISTILLATION}", 0.5),
    _fixed("momentum_label", float, _FRACTION, "momentum of the soft labels' SGD", f"DATM, {DISTILLATION}", 0.9),
    _fixed("alpha_floor", float, _AT_LEAST_0, "α is not let below this; 0: no floor",
           f"the reference codes have none (MTT#16), {DISTILLATION}", 0.0),
    _fixed("range_end", str, _one_of("exclusive", "inclusive"), "whether the upper bound is itself a start epoch",
           f"DATM's code, {MATCHING_RANGE}", "exclusive"),
    _fixed("precision", str, _one_of("fp32", "tf32", "bf16"),
           "number format of products: fp32 and tf32 in every stage, bf16 in the distillation alone", "ours", "fp32"),
    _fixed("deterministic", bool, _ANY, "whether a GPU too computes the same bits from the same seed, more slowly",
           "ours", False),
    _fixed("compile", str, _one_of("auto", "on", "off"),
           "whether the distillation's step is compiled; auto: where it pays, and in bf16", "ours", "auto"),
    # Experts
    _fixed("expert_count", int, _AT_LEAST_1, "expert trajectories", f"DATM, {EXPERTS}", 100),
    _fixed("horizon_epochs", int, _AT_LEAST_1, "epochs of an expert; at least the largest T_plus + M", EXPERTS),
    _fixed("expert_seed", int, _AT_LEAST_0, "seed of the experts, which sweeps share whatever their own", "ours", 0),
    _fixed("expert_optimizer", str, _one_of("gsam", "sgd"), "optimiser of the experts", f"FTD, {EXPERTS}", "gsam"),
    _fixed("expert_lr", float, _POSITIVE, "learning rate of the experts, constant", f"FTD, {EXPERTS}", 0.01),
    _fixed("expert_momentum", float, _FRACTION, "momentum of the experts", f"FTD, {EXPERTS}", 0.0),
    _fixed("expert_weight_decay", float, _AT_LEAST_0, "weight decay of the experts", f"FTD, {EXPERTS}", 0.0),
    _fixed("expert_batch_size", int, _AT_LEAST_1, "real images a step of an expert", f"FTD, {EXPERTS}", 256),
    _fixed("sam_rho", float, _POSITIVE, "ρ: radius of GSAM's perturbation", f"FTD, {EXPERTS}", 0.01),
    _fixed("gsam_alpha", float, _AT_LEAST_0, "α of GSAM: weight of the orthogonal part", f"DATM, {EXPERTS}", 0.3),
    _fixed("sam_adaptive", bool, _ANY, "whether the perturbation scales with the parameters", f"FTD, {EXPERTS}", True),
    # Data and network
    _fixed("zca", bool, _ANY, "whether images are whitened",
           f"MTT, FTD and DATM do, M-DATM does not, {NORMALISATION}", False),
    _fixed("classes", int, _AT_LEAST_0, "use the first so many classes in label order only; 0: all", "ours", 0),
    _fixed("image_size", int, _AT_LEAST_0, "height and width to which images are resized, in pixels; 0: as they are",
           "ours", 0),
    _fixed("fit", str, _one_of("crop", "pad", "squash"),
           "how an image becomes square: its centre, with margins, or distorted", "ours", "crop"),
    _fixed("background", str, _COLOUR, "colour behind transparent pixels and in margins", "ours", "white"),
    _fixed("damaged", str, _one_of("refuse", "skip"), "what happens to a dataset with damaged images: refused, or they "
           "are left out", "ours", "refuse"),
    _fixed("augmentation", str, _AUGMENTATION, "augmentation; dataset: what suits the dataset", DSA, "dataset"),
    _fixed("validation_share", float, _UP_TO_HALF, "share of the training images held out for the search's objective",
           "ours", 0.1),
    _fixed("test_share", float, _UP_TO_HALF, "share of each class's images that becomes the test split where the files "
           "have none", "ours", 0.2),
    _fixed("test_split", str, _one_of("auto", "test", "validation"),
           "split of the files that is the test split; auto: the one that is labelled, test before validation", "ours",
           "auto"),
    _fixed("network", str, Registered(Kind.NETWORK), "what experts, distillation and evaluation train",
           f"challenge, {CHALLENGE_PROTOCOL}", "convnet"),
    _fixed("net_depth", int, _AT_LEAST_1, "blocks of the ConvNet", f"challenge, {CHALLENGE_PROTOCOL}", 3),
    _fixed("net_width", int, _AT_LEAST_1, "channels of the ConvNet", f"challenge, {CHALLENGE_PROTOCOL}", 128),
    # Evaluation
    _fixed("protocol_epochs", int, _AT_LEAST_1, "epochs of a network trained on a synthetic set in the finals",
           f"challenge, {CHALLENGE_PROTOCOL}", 1001),
    _fixed("validation_epochs", int, _AT_LEAST_1, "the same for the search's objective", "ours"),
    _fixed("validation_networks", int, _AT_LEAST_1, "networks a value of the search's objective",
           f"DATM, {DISTILLATION}", 1),
    _fixed("final_networks", int, _AT_LEAST_2, "networks an entry of the finals", REVIEW, 5),
    _fixed("final_seeds", int, _AT_LEAST_0, "distillations, each with a seed of its own, of the winner's and of the "
           "reference's settings in the finals; 0: none but the search's; a study has its repeats", REVIEW, 3),
    _fixed("full_data_epochs", int, _AT_LEAST_1, "epochs on the full training set in the finals", "ours"),
    # What a set must beat
    _fixed("baselines", str, RegisteredSets(REAL_SETS),
           "sets that the finals measure too, beside random real images: names joined by commas, all or none",
           f"HT, {CORESETS}", "random,k_center,el2n_best,cad_prune"),
    _fixed("regimes", str, Plain(list_text(REGIMES), lambda value: is_list_of(value, REGIMES)),
           "label regimes in which the finals measure the best settings' sets and the baselines once more",
           f"HT, {LABEL_REGIMES}", "none"),
    _fixed("regime_epochs", int, _AT_LEAST_1, "epochs of a network trained in a label regime",
           f"HT, {LABEL_REGIMES}", 300),
    _fixed("temperature", float, _POSITIVE, "T of the KL divergence to a teacher's labels",
           f"HT, {LABEL_REGIMES}", 20.0),
    _fixed("teacher", str, _one_of("trained", "expert"),
           "who labels in the soft regimes: a network trained on all real images, or expert 0 at the horizon",
           f"HT tries weak teachers too, {LABEL_REGIMES}", "trained"),
    _fixed("squeeze_epochs", int, _AT_LEAST_1, "epochs of the network that SRe2L squeezes the real images into",
           f"SRe2L's CIFAR-100 code, {SRE2L}", 200),
    _fixed("recover_iterations", int, _AT_LEAST_1, "updates of each image in SRe2L's recovery", f"SRe2L, {SRE2L}",
           4000),
    # Comparison
    _fixed("ipcs", str, Plain("(none, or increasing whole numbers joined by commas)", are_sizes),
           "images per class at which a comparison makes and measures every method's sets; none: no comparison",
           f"HT's scalability study, {LABEL_REGIMES}", "none"),
    _fixed("methods", str, RegisteredSets(MAKE_SETS), "what a comparison measures: names joined by commas, or all",
           f"HT, {LABEL_REGIMES}", "all"),
    # Search or study
    _fixed("repeats", int, _AT_LEAST_1, "distillations of each variant of a study, each with its own seed",
           REVIEW, 3),
    _fixed("trials", int, _AT_LEAST_1, "trials, unless --trials says otherwise; a study's: variants × repeats", "ours"),
    _fixed("validation_every_iterations", int, _AT_LEAST_1, "iterations between two values of the objective", "ours"),
    _fixed("first_rung_iterations", int, _AT_LEAST_1, "no trial is stopped before this many iterations", "ours"),
    _fixed("reduction_factor", int, _AT_LEAST_2, "one trial in this many passes a rung", "ASHA's η", 3),
)
# fmt: on

VOCABULARY = {entry.name: entry for entry in _KEYS}
"""The keys by name, in the order in which they are drawn and listed."""

DEFAULTS: dict[str, Value] = {entry.name: entry.default for entry in _KEYS if entry.default is not None}
"""Values of keys that a space leaves out; the configs of `trainables` have no defaults."""


def matching_range(T_minus: int, T: int, T_plus: int) -> dict[str, Value]:
    """Return the keys of a matching range in the papers' notation; T = T_plus is a fixed range."""
    return {"T_minus": T_minus, "T_width": T - T_minus, "T_growth": T_plus - T}


def key(name: str) -> Key:
    """Return the key of that name.

    Raises:
        SpaceError: if there is no such key; the message has the nearest one.
    """
    if name in DERIVED:
        raise SpaceError(f"{name} follows from {DERIVED[name]} and cannot be set; set those")
    if name not in VOCABULARY:
        raise SpaceError(f"unknown parameter {name}; {nearest(name, VOCABULARY)}")
    return VOCABULARY[name]
