"""Cross-entropies with smoothed targets.

Options that several losses share are described in full in `softmax_cross_entropy`, and so are the errors.
Losses with Keras' names reproduce Keras 3.15.
"""

from lsmooth.losses._cross_entropy import sigmoid_cross_entropy, softmax_cross_entropy
from lsmooth.losses._focal import poly_cross_entropy, sigmoid_focal_loss, softmax_focal_loss
from lsmooth.losses._keras_classes import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    KLDivergence,
    SparseCategoricalCrossentropy,
)
from lsmooth.losses._keras_functions import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    kl_divergence,
    sparse_categorical_crossentropy,
)
from lsmooth.losses._linear import linear_softmax_cross_entropy
from lsmooth.losses._loss import Loss
from lsmooth.losses._penalties import (
    adaptive_conditional_label_smoothing,
    confidence_penalty,
    logit_penalty,
    margin_label_smoothing,
    max_suppression,
)
from lsmooth.losses._robust import bootstrap_cross_entropy, generalized_cross_entropy, symmetric_cross_entropy
from lsmooth.losses._serialization import deserialize, get, serialize
from lsmooth.losses._statistics import (
    SoftmaxStatistics,
    linear_softmax_cross_entropy_with_statistics,
    linear_softmax_statistics,
    softmax_cross_entropy_with_statistics,
    softmax_statistics,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "KLDivergence",
    "Loss",
    "SoftmaxStatistics",
    "SparseCategoricalCrossentropy",
    "adaptive_conditional_label_smoothing",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "bootstrap_cross_entropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "confidence_penalty",
    "deserialize",
    "generalized_cross_entropy",
    "get",
    "kl_divergence",
    "linear_softmax_cross_entropy",
    "linear_softmax_cross_entropy_with_statistics",
    "linear_softmax_statistics",
    "logit_penalty",
    "margin_label_smoothing",
    "max_suppression",
    "poly_cross_entropy",
    "serialize",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_statistics",
    "softmax_focal_loss",
    "softmax_statistics",
    "sparse_categorical_crossentropy",
    "symmetric_cross_entropy",
]
