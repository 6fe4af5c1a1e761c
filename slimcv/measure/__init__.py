"""Measuring a variant: latency, memory, size, MACs and accuracy, one file each."""
