"""Kernels in Triton for tensors on a GPU: one program a row."""
