"""scikit-learn's 8×8 digits, 1 image per class: a whole sweep in minutes, with nothing to download."""

from search_spaces.space import Fixed, Integer, Real, Space

OURS = "ours, not the paper's"

SPACE = Space(
    name="digits",
    title="Which matching range suits so few images per class, on a dataset that a laptop can sweep?",
    dataset="digits",
    reference="our own reference, not the paper's: M-DATM has no setting for the digits",
    parameters={
        "N": Integer(10, 30, first=20, source=OURS),
        "M": Integer(1, 3, first=2, source=OURS),
        "T_minus": Integer(0, 14, first=0, source=OURS),
        "T_width": Integer(1, 6, first=6, source=OURS),
        "T_growth": Integer(0, 2, first=2, source=OURS),
        "interval": Fixed(25, source=OURS),
        "lr_pixel": Real(3.0, 100.0, first=30.0, log=True, source=OURS),
        "lr_alpha": Real(1e-6, 1e-3, first=1e-5, log=True, source=OURS),
        "alpha_init": Real(0.01, 0.1, first=0.05, log=True, source="N·α goes about as far as M expert epochs"),
        "batch_syn": Fixed(10, source=OURS),
        "ipc": Fixed(1, source=OURS),
        "iterations": Fixed(150, source=OURS),
        "expert_count": Fixed(8, source=OURS),
        "horizon_epochs": Fixed(25, source="the largest T_plus + M of this space"),
        "max_matching_loss": Fixed(5.0, source="settings whose N·α overshoots start above 1 and would never move"),
        "expert_lr": Fixed(0.05, source="10 times fewer steps an epoch than CIFAR's, so each goes further"),
        "expert_batch_size": Fixed(64, source=OURS),
        "validation_share": Fixed(0.25, source=OURS),
        "net_depth": Fixed(2, source=OURS),
        "net_width": Fixed(32, source=OURS),
        "validation_epochs": Fixed(300, source=OURS),
        "validation_networks": Fixed(2, source=OURS),
        "full_data_epochs": Fixed(60, source=OURS),
        "squeeze_epochs": Fixed(10, source="ours: SRe2L's network is at 97 % by then"),
        "recover_iterations": Fixed(300, source="ours: more were worth little"),
        "trials": Fixed(12, source=OURS),
        "validation_every_iterations": Fixed(25, source=OURS),
        "first_rung_iterations": Fixed(50, source=OURS),
        "reduction_factor": Fixed(2, source=OURS),
    },
)
