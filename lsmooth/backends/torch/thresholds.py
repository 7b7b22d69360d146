"""Sizes at which PyTorch's kernels switch algorithms, measured on 2 cores of a Xeon, float32.

Constants that keep results exact are in the kernels.
"""

from __future__ import annotations

# Up to so many logits, a few of PyTorch's own operations are faster than the blocks of a kernel.
SMALL_CROSS_ENTROPY = 2**16
# Of images of fewer classes PyTorch's own function is the fastest: the kernel makes more passes over the rows. At
# (8, 2, 256, 256) it takes 4.2 ms and the kernel 5.4; at (8, 12, 128, 128), 4.1 and 3.6.
FEW_CLASSES = 12
# Up to so many logits, a call that raises an error takes no longer than a look at all logits.
TINY_CROSS_ENTROPY = 2**12
# The forward KL with its gradient takes 0.34 ms instead of 0.43 at 256 x 256, 0.48 instead of 0.50 at 512 x 256, and
# 0.80 instead of 0.61 at 1024 x 256.
SMALL_DIVERGENCE = 2**17
SMALL_SIGMOID = 2**15
# 0.17 ms instead of 0.22 at 32 x 256, 0.19 instead of 0.23 at 64 x 256; equal at 128 x 256.
SMALL_LOG_ODDS = 2**14

# Up to so many logits, the softmax kernel takes all rows as one block: there are fewer calls.
ONE_BLOCK = 2**18
# Elements of a block, for each thread: its logits and their gradient fit in the cache of a core.
BLOCK_ELEMENTS = 2**17
# Of images larger blocks pay: the mean at (4, 21, 128, 128) takes 2.9 ms instead of 4.5, at (2, 150, 128, 128) 9.9
# instead of 13.8.
IMAGE_BLOCK_ELEMENTS = 2**21
# Divergences make more passes over a block, for which fewer and larger blocks pay.
DIVERGENCE_BLOCK_ELEMENTS = 2**18
# Classes that share one maximum, of which the argmax is taken: PyTorch vectorises the maximum, not the argmax.
ARGMAX_CLASSES = 128
# Elements of a weight in half precision that are copied to float32, or of its gradient that are formed, at a time.
HALF_WEIGHT_ELEMENTS = 2**20

# From so many bytes on, a result gets memory of its own: glibc gives it back when it is freed, and every page of
# the next one is a fault.
MAPPED_BYTES = 2**25
# Up to so many bytes of scratch memory stay with a thread for its next call.
SCRATCH_BYTES = 2**23

# From so many classes, or logits, on, the operators are faster than what ``torch.compile`` makes of the formula.
# For a size that is to stay open in the graph, only what is known of it counts.
COMPILED_CLASSES, COMPILED_LOGITS = 2**14, 2**21

# Columns of a block of a Triton kernel, and of a warp. With twice as many columns and every option on, the 16 warps
# spill registers on compute capability 9.0, as ptxas -v says; the kernels have not been timed.
GPU_COLUMNS = 8192
GPU_COLUMNS_PER_WARP = 512
# Elements of a block on a GPU, where the formula computes the gradient of statistics.
GPU_STATISTICS_ELEMENTS = 2**26

# Of logits that are there already, in a formula that is taken in blocks: the arrays that it makes of them stay in the
# cache.
LOGIT_ELEMENTS = 2**18
