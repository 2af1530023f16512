"""Training on a set and testing: label regimes, teachers, metrics."""
