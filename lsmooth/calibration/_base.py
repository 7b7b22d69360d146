"""The base of the calibrators: parameters, fitted values in names that end in ``_``, and JSON files."""

from __future__ import annotations

import inspect
import json
import math
import sys
import warnings
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from lsmooth import _validation as check
from lsmooth._probabilities import ROUNDING, check_distributions
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate
from lsmooth.calibration._moments import Rows

FORMAT = "lsmooth.calibration"
VERSION = 1
_LARGEST_FILE = 2**28


class ConvergenceWarning(UserWarning):
    """The fit of a calibrator has no optimum, or stopped before it; ``status_`` says which."""


def warn(message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Warn at the line outside lsmooth that called it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("lsmooth."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


class NanArray(np.ndarray):
    """The type of a fitted array that may contain NaN, which is null in the file."""


KINDS = {"float": float, "int": int, "str": str, "list[str]": list, "np.ndarray": np.ndarray, "NanArray": NanArray}
"""The types of fitted values, by name."""


@dataclass(kw_only=True, repr=False, eq=False)
class Calibrator:
    """Base of the calibrators: scikit-learn's parameters, and JSON instead of pickle.

    The fields of a subclass are the arguments of its constructor, which ``fit`` checks. Fields with ``init=False``
    are fitted values, saved under their declared types.

    Args:
        axis: the class axis.
        ignore_index: rows with this label are left out of the fit.
        from_logits: False for probabilities.
        binary: every element is the logit (or probability) of a label of its own.
    """

    axis: int = -1
    ignore_index: int | None = None
    from_logits: bool = True
    binary: bool = False

    @classmethod
    def _fitted(cls) -> dict[str, type]:
        """The types of the fitted values, by name."""
        return {f.name: KINDS[str(f.type)] for f in fields(cls) if not f.init}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name, as in scikit-learn."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor; the next ``fit`` checks them."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The call that makes this calibrator, without arguments that have their default."""
        signature = inspect.signature(type(self)).parameters
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if v != signature[k].default]
        return f"{type(self).__name__}({', '.join(given)})"

    def fit(self, logits: Array, labels: Array, sample_weight: Array | None = None) -> Self:
        """Fit the calibrator to held-out rows.

        Args:
            logits: floating point, any shape, classes along ``axis``; -inf masks a class. Probabilities if
                ``from_logits`` is False.
            labels: class ids, integers in the shape of the logits without ``axis``; or distributions, in the
                shape of the logits. If ``binary``, 0, 1 or between, in the shape of the logits.
            sample_weight: at least 0, a scalar, or of the rows' rank, each dimension equal or 1; a weight of n
                counts as n rows.

        Returns:
            This calibrator.

        Raises:
            ImportError: if SciPy is needed and not installed.
            TypeError: if a dtype is wrong, tensors of two frameworks meet, or the call is traced.
            ValueError: if shapes do not fit, an option is out of range, a label is no class, logits
                are not finite, or no row counts.
        """
        self._check_parameters()
        self._fit(logits, labels, sample_weight)
        return self

    def transform(self, logits: Array) -> Array:
        """Calibrated logits; probabilities if ``from_logits`` is False, or if the calibrator has no logits.

        Maps of logits are differentiable. Histogram and isotonic calibration run in NumPy.

        Args:
            logits: floating point, classes along ``axis``; probabilities if ``from_logits`` is False.

        Returns:
            The logits' shape. Temperatures keep the dtype; other calibrators return float64 for float64 logits,
            else float32.

        Raises:
            TypeError: if a calibrator without logits is traced.
            ValueError: if nothing has been fitted, or the number of classes differs.
        """
        self._check_fitted()
        return self._transform(logits) if self.from_logits else self._predict(logits)

    def predict_proba(self, logits: Array) -> Array:
        """Calibrated probabilities; if ``binary``, those of class 1.

        Args:
            logits: as in `transform`.

        Returns:
            Probabilities in the logits' shape.

        Raises:
            TypeError: as `transform`.
            ValueError: as `transform`.
        """
        self._check_fitted()
        return self._predict(logits)

    def _fit(self, logits: Array, labels: Array, sample_weight: Array | None) -> Any:
        raise NotImplementedError

    def _transform(self, logits: Array) -> Array:
        """Calibrated logits of logits."""
        raise NotImplementedError

    def _predict(self, logits: Array) -> Array:
        raise NotImplementedError

    def save(self, path: str | PathLike[str]) -> None:
        """Write parameters and fitted values as JSON.

        Args:
            path: the file; an existing one is replaced.

        Raises:
            ValueError: if nothing has been fitted.
        """
        self._check_fitted()
        content = {
            "format": FORMAT,
            "version": VERSION,
            "class": type(self).__name__,
            "parameters": {name: _plain(value) for name, value in self.get_params().items()},
            "fitted": {name: _to_json(getattr(self, name)) for name in self._fitted()},
        }
        text = json.dumps(content, indent=2, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what `save` has written; nothing in the file is executed.

        Args:
            path: the file.

        Returns:
            The fitted calibrator.

        Raises:
            ValueError: if the file was not written by `save`; the message names the fault.
        """
        content = read(path)
        if content["class"] != cls.__name__:
            raise ValueError(f"{path} holds a {content['class']!r}, not a {cls.__name__}.")
        return cls._from_content(path, content)

    @classmethod
    def _from_content(cls, path: str | PathLike[str], content: dict[str, Any]) -> Self:
        parameters, fitted = content["parameters"], content["fitted"]
        known = set(inspect.signature(cls).parameters)
        if isinstance(parameters, dict):  # files of earlier releases have fewer
            later = {"clip": None, "strategy": "one_vs_rest"}
            parameters = {**{name: value for name, value in later.items() if name in known}, **parameters}
        _check_names(path, "parameters", parameters, known)
        _check_names(path, "fitted", fitted, set(cls._fitted()))
        for name, value in parameters.items():
            _check_plain(path, f"parameters.{name}", value)
        given: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in parameters.items()}
        calibrator = cls(**given)
        for name, kind in cls._fitted().items():
            setattr(calibrator, name, _from_json(path, f"fitted.{name}", fitted[name], kind))
        try:
            calibrator._check_parameters()
            calibrator._check_values()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        return calibrator

    def _check_parameters(self) -> None:
        """Raise if an argument of the constructor is wrong."""
        check_option("axis", self.axis, int)
        check_option("ignore_index", self.ignore_index, int, optional=True)
        check_option("from_logits", self.from_logits, bool)
        check_option("binary", self.binary, bool)

    def _check_values(self) -> None:
        """Raise if fitted values that were read from a file are impossible."""

    def _check_fitted(self) -> None:
        if not all(hasattr(self, name) for name in self._fitted()):
            raise ValueError(f"This {type(self).__name__} is not fitted yet; call fit(logits, labels) first.")


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """The content of a calibrator's file, with its keys checked."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise type(error)(f"path must be a file that a calibrator's save(path) has written: {error}.") from error
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"{path} is larger than any calibrator's file ({_LARGEST_FILE} bytes).")
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError too
        raise ValueError(f"{path} is not JSON that lsmooth can read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a calibrator saved by lsmooth: it has no 'format': '{FORMAT}'.")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {content.get('version')!r}, this lsmooth reads version {VERSION}; "
            "save it again with this release, or install the one that wrote it."
        )
    _check_names(path, "file", content, {"format", "version", "class", "parameters", "fitted"})
    if not isinstance(content["class"], str):
        raise ValueError(f"{path}: class must be a string, got {content['class']!r}.")
    return content


def eager(method: str, **arrays: Any) -> Backend:
    """The backend of a call that reads values; raises if they are traced."""
    for name, array in arrays.items():
        if callable(array) or hasattr(array, "predict"):
            raise TypeError(
                f"{method} takes {name}, got a model ({type(array).__name__}). To calibrate a model, call "
                "TemperatureScaled(model).calibrate(batches), with TemperatureScaled from lsmooth.integrations.torch, "
                "keras or flax; for scikit-learn, CalibratedLogitClassifier(model).fit(X, y)."
            )
    xp = backend_of(**arrays)
    for name, array in arrays.items():
        if xp.is_array(array) and not xp.is_concrete(array):
            raise TypeError(
                f"{method} reads the values of {name}, which is being traced; call it outside jit, tf.function and "
                "torch.compile."
            )
    return xp


def fit_arguments(
    xp: Backend, logits: Any, labels: Any, sample_weight: Any, axis: int
) -> tuple[Array, Array, Array | None, int]:
    """Logits, labels and weights of a fit as arrays, with their shapes checked, and the axis from the front."""
    logits = check.logits_array(xp, "logits", logits, labels, "fit(logits, labels)")
    labels, front, soft = check.check_labels(xp, labels, logits, axis)
    rows = xp.max(labels, axis=front) if soft and sample_weight is not None else labels
    return logits, labels, _row_weight(xp, sample_weight, rows, logits), front


def binary_arguments(xp: Backend, logits: Any, labels: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
    """`fit_arguments` for ``binary``, where every element is a row."""
    logits = check.logits_array(xp, "logits", logits, labels, "fit(logits, labels)")
    labels = check.to_array(xp, "labels", labels, like=logits)
    if not check.same_shape(xp.shape(labels), xp.shape(logits)):
        raise ValueError(
            f"labels must have the shape of the logits, {xp.shape(logits)}, where binary=True; got {xp.shape(labels)}."
        )
    if xp.dtype(labels) not in check.FLOATS:
        labels = xp.cast(labels, "int32") if xp.dtype(labels) == "bool" else check.class_ids(xp, labels)
    return logits, labels, _row_weight(xp, sample_weight, logits, logits)


def rows_of(calibrator: Any, logits: Any, labels: Any, sample_weight: Any, **options: Any) -> Rows:
    """The checked rows of a fit, read as the calibrator's parameters say."""
    xp = eager("fit", logits=logits, labels=labels, sample_weight=sample_weight)
    if calibrator.binary:
        logits, labels, weight = binary_arguments(xp, logits, labels, sample_weight)
        axis = -1
    else:
        logits, labels, weight, axis = fit_arguments(xp, logits, labels, sample_weight, calibrator.axis)
    names = ("ignore_index", "from_logits", "binary")
    options |= {name: getattr(calibrator, name) for name in names}
    options |= {"clip": getattr(calibrator, "clip", None), "validate": check.is_validating(xp, logits, labels)}
    return Rows(xp, logits, labels, weight, axis=axis, **options)


def _row_weight(xp: Backend, sample_weight: Any, rows: Array, logits: Array) -> Array | None:
    if sample_weight is None:
        return None
    dtype = "float64" if xp.dtype(logits) == "float64" else "float32"
    weight = check.to_array(xp, "sample_weight", sample_weight, dtype, like=logits)
    check.check_weight_shape("sample_weight", xp.shape(weight), xp.shape(rows))
    return weight * xp.ones_like(rows, dtype)


def check_option(name: str, value: Any, kind: type, *, optional: bool = False) -> None:
    """Raise unless an option is an integer or a bool, Python's or NumPy's; a bool is not an integer."""
    if optional and value is None:
        return
    if not (check.is_integer_number(value) if kind is int else isinstance(value, (kind, np.bool_))):
        raise TypeError(f"{name} must be {'None or ' if optional else ''}of type {kind.__name__}, got {value!r}.")


def check_clip(calibrator: Any) -> None:
    """Raise unless ``clip`` is None, or below 0.5 and for probabilities."""
    clip = calibrator.clip
    if clip is None:
        return
    if not check.is_real_number(clip) or not 0 < clip < 0.5:
        raise ValueError(f"clip must be None or between 0 and 0.5, got {clip!r}.")
    if calibrator.from_logits:
        raise ValueError(f"clip={clip!r} is for probabilities; give from_logits=False, or clip=None for logits.")


def predictions_of(calibrator: Any, xp: Backend, logits: Any, like: Array | None = None) -> Array:
    """The checked logits or probabilities of a call; a number outside [0, 1] becomes NaN if they are probabilities."""
    array = check.float_array(xp, "logits", logits, like=like)
    if check.is_validating(xp, array):
        check.check_not_nan(xp, "logits", array)
        if not calibrator.from_logits:
            p = xp.to_numpy(array)
            axis = check.check_axis(calibrator.axis, p.shape) if not calibrator.binary else 0
            check_distributions("logits", np.stack([1 - p, p], -1) if calibrator.binary else np.moveaxis(p, axis, -1))
    if calibrator.from_logits:
        return array
    return xp.where((array < -ROUNDING) | (array > 1.0 + ROUNDING), float("nan"), array)


def log_of(xp: Backend, p: Array, clip: float | None) -> Array:
    """log(p), or log(max(p, clip))."""
    if clip is None:
        return xp.log(p)
    wide = accumulate(xp, p)  # float16 would round the clip to 0
    return xp.cast(xp.log(xp.where(wide < clip, float(clip), wide)), xp.dtype(p))


def _plain(value: Any) -> Any:
    """A parameter as plain Python values, for JSON."""
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _check_names(path: Any, where: str, content: Any, names: set[str]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {where} must be an object, got {type(content).__name__}.")
    if set(content) != names:
        missing, unknown = sorted(names - set(content)), sorted(set(content) - names)
        raise ValueError(f"{path}: {where} lacks {missing} and has unknown {unknown}.")


def _check_plain(path: Any, name: str, value: Any) -> None:
    plain = (bool, int, float, str, type(None))
    if not isinstance(value, plain) and not (isinstance(value, list) and all(isinstance(v, plain) for v in value)):
        raise ValueError(f"{path}: {name} must be a plain value or a list of them, got {type(value).__name__}.")


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_to_json(v) for v in value.tolist()] if value.ndim == 1 else [_to_json(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_json(path: Any, name: str, value: Any, kind: type) -> Any:
    if kind is NanArray and isinstance(value, list):
        return _array(path, name, [0.0 if v is None else v for v in value], [v is None for v in value])
    if issubclass(kind, np.ndarray):
        return _array(path, name, value)
    if kind is float:
        if value is None:
            return math.nan
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not _is_finite(value):
            raise ValueError(f"{path}: {name} must be a finite number or null, got {value!r:.80}.")
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{path}: {name} must be of type {kind.__name__}, got {value!r:.80}.")
    if isinstance(value, list) and not all(isinstance(v, str) for v in value):
        raise ValueError(f"{path}: {name} must be a list of strings.")
    return value


def _array(path: Any, name: str, value: Any, missing: list[bool] | None = None) -> np.ndarray:
    try:
        array = np.array(value) if isinstance(value, list) else None
    except ValueError:
        array = None
    if array is None or array.dtype.kind not in "if" or not np.isfinite(array).all():
        raise ValueError(f"{path}: {name} must be a rectangular list of finite numbers.")
    array = array.astype(np.float64)
    return array if missing is None else np.where(missing, math.nan, array)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
