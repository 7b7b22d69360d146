"""Losses by name and by config, as in ``keras.losses.get``, ``serialize`` and ``deserialize``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from lsmooth.losses import _keras_classes as keras_classes
from lsmooth.losses import _keras_functions as keras_functions
from lsmooth.losses._loss import Loss

LossLike: TypeAlias = Loss | Callable[..., Any]

# The losses that `get` and `deserialize` know, and that are registered with Keras.
KNOWN: dict[str, Any] = {
    known.__name__: known
    for known in (
        keras_functions.binary_crossentropy,
        keras_functions.binary_focal_crossentropy,
        keras_functions.categorical_crossentropy,
        keras_functions.categorical_focal_crossentropy,
        keras_functions.kl_divergence,
        keras_functions.sparse_categorical_crossentropy,
        keras_classes.BinaryCrossentropy,
        keras_classes.BinaryFocalCrossentropy,
        keras_classes.CategoricalCrossentropy,
        keras_classes.CategoricalFocalCrossentropy,
        keras_classes.KLDivergence,
        keras_classes.SparseCategoricalCrossentropy,
    )
}
KNOWN |= dict.fromkeys(("bce", "BCE"), keras_functions.binary_crossentropy)
KNOWN |= dict.fromkeys(("kld", "KLD"), keras_functions.kl_divergence)


def get(identifier: str | Mapping[str, Any] | LossLike | type[Loss] | None) -> LossLike | None:
    """A Keras-named loss by its name, config or class.

    Args:
        identifier: the name of a function or a class, including the aliases ``"bce"`` and ``"kld"``; a config of
            `serialize`; a loss class; a loss or a function, which is returned unchanged; or None.

    Returns:
        A function for a function's name, an instance for a class's name, or None for None.

    Raises:
        ValueError: if the name is unknown.

    Source: ``keras.losses.get``.

    Examples:
        >>> from lsmooth import losses
        >>> losses.get("categorical_crossentropy") is losses.categorical_crossentropy
        True
        >>> losses.get({"class_name": "KLDivergence", "config": {"reduction": "sum"}}).reduction
        'sum'
    """
    if identifier is None:
        return None
    loss: Any = identifier
    if isinstance(identifier, (str, Mapping)):
        loss = deserialize(identifier)
    if not callable(loss):
        raise ValueError(f"identifier must be a loss or the name of one; got {identifier!r}.")
    return loss() if isinstance(loss, type) else loss


def serialize(loss: LossLike) -> dict[str, Any]:
    """The config of a loss, in plain values for JSON.

    Args:
        loss: a `Loss`, or a function of `lsmooth.losses`.

    Returns:
        A config for `deserialize` and for Keras' own ``deserialize``.

    Raises:
        TypeError: if ``loss`` is neither.

    Source: ``keras.losses.serialize``.

    Examples:
        >>> from lsmooth import losses
        >>> losses.serialize(losses.KLDivergence())["config"]
        {'name': 'kl_divergence', 'reduction': 'sum_over_batch_size'}
    """
    if isinstance(loss, Loss):
        name, config = type(loss).__name__, loss.get_config()
        registered_name = f"lsmooth>{name}" if type(loss) is KNOWN.get(name) else name
        return {
            "module": type(loss).__module__,
            "class_name": name,
            "config": config,
            "registered_name": registered_name,
        }
    if not inspect.isfunction(loss):
        raise TypeError(f"loss must be a lsmooth.losses.Loss or a function, got {type(loss).__name__}.")
    name = loss.__name__
    return {"module": loss.__module__, "class_name": "function", "config": name, "registered_name": name}


def deserialize(name: str | Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> LossLike:
    """The loss of a config of `serialize`. No module is imported: a config refers to known losses only.

    Args:
        name: a config, or the name of a function or class.
        custom_objects: further losses and functions, by name.

    Returns:
        A `Loss`, or a function.

    Raises:
        ValueError: if the config is malformed or names something unknown.

    Source: ``keras.losses.deserialize``.

    Examples:
        >>> from lsmooth import losses
        >>> config = losses.serialize(losses.BinaryCrossentropy(label_smoothing=0.1))
        >>> losses.deserialize(config).label_smoothing
        0.1
    """
    if isinstance(name, str):
        return _find(name, custom_objects or {})
    if not isinstance(name, Mapping) or "class_name" not in name:
        raise ValueError(f"name must be a loss's name or a config with a class_name, got {name!r}.")
    config = name.get("config") or {}
    if name["class_name"] == "function":
        return _find(config, custom_objects or {})
    found = _find(name["class_name"], custom_objects or {})
    if not isinstance(config, Mapping) or not hasattr(found, "from_config"):
        raise ValueError(f"name must be the config of a loss class, got {name!r}.")
    return found.from_config(dict(config))


def _find(name: Any, custom_objects: Mapping[str, Any]) -> Any:
    known = {**KNOWN, **custom_objects}
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"No loss is called {name!r}. Known are {', '.join(sorted(known))}.")
    return known[name]
