"""The choices of options, listed here so that the command line starts without importing NumPy."""

from __future__ import annotations

from enum import StrEnum

Method = StrEnum(
    "Method",
    {
        "TEMPERATURE": "temperature",
        "MIXED": "mixed",
        "BIAS_CORRECTED": "bias-corrected",
        "VECTOR": "vector",
        "STRUCTURED_VECTOR": "structured-vector",
        "MATRIX": "matrix",
        "STRUCTURED_MATRIX": "structured-matrix",
        "DIRICHLET": "dirichlet",
        "QUADRATIC": "quadratic",
        "HISTOGRAM": "histogram",
        "ISOTONIC": "isotonic",
    },
)
Convention = StrEnum(
    "Convention",
    {
        "GUO": "guo",
        "TORCHMETRICS": "torchmetrics",
        "NETCAL": "netcal",
        "TFP": "tfp",
        "SKLEARN": "sklearn",
        "RELPLOT": "relplot",
    },
)
Decimal = StrEnum("Decimal", {"POINT": ".", "COMMA": ","})
Framework = StrEnum("Framework", {"TORCH": "torch", "JAX": "jax", "TENSORFLOW": "tensorflow"})
Dataset = StrEnum("Dataset", {"DIGITS": "digits", "BREAST_CANCER": "breast_cancer", "WINE": "wine"})
