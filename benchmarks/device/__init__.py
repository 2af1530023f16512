"""The parts of `python -m benchmarks.gpu`: what is checked and measured on a device, in which processes and sizes."""
