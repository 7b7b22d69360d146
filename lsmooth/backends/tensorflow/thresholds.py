"""Sizes at which TensorFlow's kernels change their ways, tuned by measurement on 2 cores of a Xeon, float32."""

from __future__ import annotations

# From so many logits on, a kernel is compiled by XLA within a traced function.
XLA_ELEMENTS = 2**22
# Elements that an eager shape has to see before it is compiled: two calls at 2048 x 32000, 30 at 2**22. Compiling
# takes 1.2 to 2.5 s of CPU, a call at 2**22 0.03 s.
COMPILE_AFTER = 125_000_000
# Shapes that are counted; the ones not seen for longest are forgotten.
COUNTED_SHAPES = 256
# Up to so many logits, looking for masked classes costs less than asking whether there are any.
SMALL = 2**14
# Parts of a row whose terms XLA adds up before it stores them for the reduction to read.
ROW_PARTS = 16
# Elements that share a logarithm in the sigmoid's kernel: the product of 16 numbers in [1, 2] stays far from overflow.
LOGARITHM_ELEMENTS = 16
# Rows that are assumed where their number is not known: as many as take the largest blocks.
UNKNOWN_ROWS = 2**16
