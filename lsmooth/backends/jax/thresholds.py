"""Sizes at which JAX's kernels change their ways, tuned by measurement on 2 cores of a Xeon, float32."""

from __future__ import annotations

# Up to so many elements, a pass over all of them costs less than a branch, a gather or a scatter.
SMALL = 2**12
# Up to so many elements, no branch on whether classes are masked: XLA compiles a loss with it in 0.37 s, and in 0.17 s
# without, which takes 1.13 ms in place of 0.95 ms at 128 x 8192. At 64 x 65536 it takes 7.2 ms in place of 5.0 ms.
BRANCH_ELEMENTS = 2**20
# From so many classes on, the argmax is taken of the maxima of parts, which XLA vectorises, unlike the argmax.
ARGMAX_CLASSES, ARGMAX_PART = 2**14, 32

# From so many elements on, divergences and sums of the sigmoid cross-entropy go by blocks, each of about so many.
BLOCKED_ELEMENTS = 2**20
BLOCK_ELEMENTS = 2**19

# Logits of a block of a linear head, of the rows of it that are worked on together, and elements of the weight's
# gradient that are formed at once.
LINEAR_BLOCK_ELEMENTS = 2**24
LINEAR_PART_ELEMENTS = 2**19
WEIGHT_GRADIENT_ELEMENTS = 2**21
