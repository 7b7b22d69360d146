"""Cross-entropies with smoothed targets."""

from lsmooth.losses.cross_entropy import sigmoid_cross_entropy, softmax_cross_entropy

__all__ = ["sigmoid_cross_entropy", "softmax_cross_entropy"]
