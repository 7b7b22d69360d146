"""Sizes at which JAX's kernels change their ways, tuned by measurement on 2 cores of a Xeon, float32."""

from __future__ import annotations

# Up to so many elements, a pass over all of them costs less than a branch, a gather or a scatter.
SMALL = 2**12
# Up to so many elements, no branch on whether classes are masked. Of the smoothed cross-entropy at 64 x 65536, XLA
# compiles the branch in 0.27 s of CPU time, and in 0.17 s without; the call takes 6.1 ms with it, 7.5 ms without
# (`lsmooth bench streams`).
BRANCH_ELEMENTS = 2**23
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
