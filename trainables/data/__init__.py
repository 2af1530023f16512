"""Datasets, decoding, augmentation, synthetic sets."""
