"""Baselines: sets with which a distilled set is compared."""
