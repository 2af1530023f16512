"""The ConvNet and its variants."""
