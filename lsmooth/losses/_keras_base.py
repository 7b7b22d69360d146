"""The losses of this package as Keras' own, from the moment that the user has imported Keras.

Keras asks of a loss whether it is a ``keras.losses.Loss``. One that is gets the sample weights; any other callable
is taken for a function of ``(y_true, y_pred)`` that returns one loss a row. `Loss` therefore gets Keras' class as
its base as soon as there is one, which its instances and subclasses inherit, whenever they were made. The losses
are also registered with Keras under the names by which saved models look for them.

Keras is never imported here.
"""

from __future__ import annotations

import inspect
import sys

from lsmooth.backends import Array, Backend

_joined = False


def join_keras() -> None:
    """Make `Loss` a ``keras.losses.Loss`` and register the losses, once, if Keras has been imported."""
    global _joined
    if _joined or (keras := sys.modules.get("keras")) is None:
        return
    base = getattr(getattr(keras, "losses", None), "Loss", None)
    if base is None or not hasattr(keras, "saving"):  # Keras is being imported
        return
    from lsmooth.losses._loss import Loss
    from lsmooth.losses._serialization import KNOWN

    Loss.__bases__ = (base,)
    # Under the second name the classes are in files that were saved by earlier versions.
    for package in ("lsmooth.losses", "lsmooth"):
        for loss in set(KNOWN.values()):
            # Keras unwraps a function before it looks for the name to write into an h5 file.
            for registered in (inspect.unwrap(loss), loss):
                keras.saving.register_keras_serializable(package)(registered)
    _joined = True


def refuse_a_mean(xp: Backend, logits: Array, reduction: str | None) -> None:
    """Raise if Keras calls a function that returns a mean, which it would take for the loss of every row."""
    if xp.name == "torch" and not xp.is_concrete(logits):  # torch.compile cannot follow frames
        return
    if reduction in (None, "none") or "keras" not in sys.modules:
        return
    frame, name = sys._getframe(1), ""
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        ("lsmooth.losses.", "lsmooth.backends.")
    ):
        frame, name = frame.f_back, name if frame.f_code.co_name == "wrapper" else frame.f_code.co_name
    if frame is not None and frame.f_globals.get("__name__") == "keras.src.losses.losses":
        replacement = "BinaryCrossentropy" if name.startswith("sigmoid") else "SparseCategoricalCrossentropy"
        raise TypeError(
            f"{name} returns one number for the batch, where Keras needs the loss of each row to apply sample and "
            f"class weights: give compile() lsmooth.losses.{replacement}(from_logits=True), or a function "
            f"that calls {name} with reduction='none'."
        )
