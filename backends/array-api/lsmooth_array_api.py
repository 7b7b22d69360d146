"""lsmooth on the arrays of ``array_api_strict``: the reference implementation of the array API standard."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np

from lsmooth.backends.namespace import NamespaceBackend


class ArrayApiStrictBackend(NamespaceBackend):
    """`lsmooth.backends.Backend` over ``array_api_strict``; values only.

    Examples:
        >>> import array_api_strict
        >>> from lsmooth.losses import softmax_cross_entropy
        >>> float(softmax_cross_entropy([0], array_api_strict.asarray([[0.0, 0.0]])))
        0.6931471805599453
    """

    name = "array_api_strict"
    namespace = array_api_strict
    types = (type(array_api_strict.asarray(0.0)),)

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.from_dlpack(x) if x.dtype != array_api_strict.bool else np.asarray(x, dtype=bool)
