"""The stages of sweeps, comparisons and experts, and their order."""
