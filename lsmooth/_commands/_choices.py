"""The choices that options of the commands have; importing what they name would import NumPy and more."""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """What can be fitted."""

    TEMPERATURE = "temperature"
    MIXED = "mixed"
    BIAS_CORRECTED = "bias-corrected"
    VECTOR = "vector"
    STRUCTURED_VECTOR = "structured-vector"
    MATRIX = "matrix"
    STRUCTURED_MATRIX = "structured-matrix"
    DIRICHLET = "dirichlet"
    QUADRATIC = "quadratic"
    HISTOGRAM = "histogram"
    ISOTONIC = "isotonic"


class Convention(StrEnum):
    """Whose calibration error."""

    GUO = "guo"
    TORCHMETRICS = "torchmetrics"
    NETCAL = "netcal"
    TFP = "tfp"
    SKLEARN = "sklearn"
    RELPLOT = "relplot"


class Decimal(StrEnum):
    """The decimal separator."""

    POINT = "."
    COMMA = ","


class Framework(StrEnum):
    """What trains, in the order in which the study looks for one."""

    TORCH = "torch"
    JAX = "jax"
    TENSORFLOW = "tensorflow"


class Dataset(StrEnum):
    """Of scikit-learn."""

    DIGITS = "digits"
    BREAST_CANCER = "breast_cancer"
    WINE = "wine"
