"""slimcv makes a trained PyTorch vision model small and fast on a CPU, and proves it by measurement."""

__version__ = "0.1.0"
