"""The formulas of the losses, written once over the operations of a backend; one module a family.

The class axis is the last one, and options are checked beforehand. Kernels of backends compute the same numbers faster.
"""

from lsmooth.backends.formulas.divergence import softmax_divergence
from lsmooth.backends.formulas.sigmoid import sigmoid_cross_entropy
from lsmooth.backends.formulas.softmax import label_log_odds, softmax_cross_entropy
from lsmooth.backends.formulas.statistics import row_statistics

__all__ = ["label_log_odds", "row_statistics", "sigmoid_cross_entropy", "softmax_cross_entropy", "softmax_divergence"]
