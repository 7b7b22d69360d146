"""Saved calibrators of any class."""

from __future__ import annotations

from os import PathLike

from lsmooth.calibration._affine_classes import (
    BiasCorrectedTemperatureScaling,
    DirichletCalibration,
    MatrixScaling,
    VectorScaling,
)
from lsmooth.calibration._base import Calibrator, read
from lsmooth.calibration._binning import HistogramBinning, IsotonicCalibration
from lsmooth.calibration._groups import GroupTemperatureScaling
from lsmooth.calibration._mixed import MixedTemperatureScaling
from lsmooth.calibration._quadratic import QuadraticScaling
from lsmooth.calibration._structured import StructuredMatrixScaling, StructuredVectorScaling
from lsmooth.calibration._temperature import TemperatureScaling

CALIBRATORS: dict[str, type[Calibrator]] = {
    "temperature": TemperatureScaling,
    "mixed_temperature": MixedTemperatureScaling,
    "bias_corrected_temperature": BiasCorrectedTemperatureScaling,
    "vector": VectorScaling,
    "structured_vector": StructuredVectorScaling,
    "matrix": MatrixScaling,
    "structured_matrix": StructuredMatrixScaling,
    "dirichlet": DirichletCalibration,
    "quadratic": QuadraticScaling,
    "histogram": HistogramBinning,
    "isotonic": IsotonicCalibration,
}
"""The calibrators without groups, by their names in commands and `lsmooth.integrations.sklearn`."""
CLASSES = {kind.__name__: kind for kind in sorted([*CALIBRATORS.values(), GroupTemperatureScaling], key=str)}


def load(path: str | PathLike[str]) -> Calibrator:
    """Read a calibrator of any class that was written by ``save``; nothing in the file is executed.

    Args:
        path: the file.

    Returns:
        The fitted calibrator.

    Raises:
        ValueError: if the file was not written by ``save``; the message names the fault.

    Examples:
        >>> import tempfile
        >>> from lsmooth.calibration import VectorScaling, load
        >>> scaler = VectorScaling().fit([[2.0, 0.0], [0.0, 3.0]] * 2, [0, 1, 1, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scaler.save(f"{folder}/scaler.json")
        ...     load(f"{folder}/scaler.json")
        VectorScaling()
    """
    content = read(path)
    kind = CLASSES.get(content["class"])
    if kind is None:
        raise ValueError(f"{path} holds a {content['class']!r:.80}; lsmooth has {', '.join(CLASSES)}.")
    return kind._from_content(path, content)
