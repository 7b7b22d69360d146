"""Kernels in PyTorch operations for tensors on the CPU: blocks of rows that stay in cache."""
