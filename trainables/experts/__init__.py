"""Expert trajectories: training, store and file."""
