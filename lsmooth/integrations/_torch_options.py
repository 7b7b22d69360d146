"""The options of the loss modules: checks, storage and representation."""

from __future__ import annotations

import inspect
from numbers import Real
from typing import Any

import numpy as np

from lsmooth.integrations._extras import needs

with needs("torch", "torch"):
    import torch

from lsmooth import _validation as check
from lsmooth.backends import load_backend


class LossModule(torch.nn.Module):
    """A loss whose tensor options are non-persistent buffers, and whose ``repr`` shows options not at their defaults.

    Buffers in a ``state_dict``, as torch's own losses save them, are loaded, so that strict loading works.
    """

    ignore_index: int
    _plain: bool | None = None  # whether the options are at their defaults; None before that is looked up

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self.__dict__["_plain"] = None

    def set_options(self, **options: Any) -> None:
        for name, value in options.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:  # pyright: ignore
        saved = {name for name in self._non_persistent_buffers_set if prefix + name in state_dict}
        self._non_persistent_buffers_set -= saved
        try:
            super()._load_from_state_dict(state_dict, prefix, *args)
        finally:
            self._non_persistent_buffers_set |= saved

    def is_plain(self) -> bool:
        """Whether all options are at their defaults, ``ignore_index`` being -100 or another id of no class."""
        plain = self._plain
        if plain is None:
            plain = changed_options(self).keys() <= {"ignore_index"} and self.ignore_index < 0
            self.__dict__["_plain"] = plain
        return plain

    def extra_repr(self) -> str:
        """The options that are not at their defaults."""
        return described(changed_options(self))


def check_order(input: Any, target: Any, call: str) -> None:
    """Raise if logits and class ids are swapped."""
    tensors = isinstance(input, torch.Tensor) and isinstance(target, torch.Tensor)
    if tensors and not input.dtype.is_floating_point and target.dtype.is_floating_point:
        raise TypeError(
            f"input comes first, as in {call}: input must be floating point, got {input.dtype}, and target got "
            f"{target.dtype}."
        )


def changed_options(module: torch.nn.Module) -> dict[str, Any]:
    """The constructor's arguments that are not at their defaults, without modules."""
    changed = {}
    for name, parameter in list(inspect.signature(type(module).__init__).parameters.items())[1:]:
        value = getattr(module, name)
        if not isinstance(value, torch.nn.Module) and (isinstance(value, torch.Tensor) or value != parameter.default):
            changed[name] = value
    return changed


def described(options: dict[str, Any]) -> str:
    """Options as ``name=value``, large tensors by their shape."""

    def text(x: Any) -> str:
        if isinstance(x, torch.Tensor):
            return f"<tensor of shape {tuple(x.shape)}>" if x.dim() else repr(x.detach())
        return repr(x)

    return ", ".join(f"{name}={text(x)}" for name, x in options.items())


def ignored_class(ignore_index: int, input: torch.Tensor, target: torch.Tensor, axis: int) -> int | None:
    """``ignore_index`` for class ids, None for distributions."""
    if target.is_floating_point():
        return None
    if target.shape == input.shape:
        ids = (*input.shape[:axis], *input.shape[axis:][1:])
        raise TypeError(
            f"target has the shape of input, {tuple(input.shape)}, so it must hold distributions in floating "
            f"point; got {target.dtype}. Cast it with target.float(), or give class ids of shape {ids}."
        )
    return ignore_index


def class_id(ignore_index: Any) -> int:
    if not check.is_integer_number(ignore_index):
        raise TypeError(
            f"ignore_index must be an integer, got {ignore_index!r}. torch's deprecated size_average and reduce are "
            "not supported; give reduction by keyword."
        )
    return int(ignore_index)


def class_axis(axis: Any) -> int | None:
    if axis is not None and not check.is_integer_number(axis):
        raise TypeError(f"axis must be an integer or None, got {axis!r}.")
    return None if axis is None else int(axis)


def number_or_tensor(name: str, value: Any, low: float, high: float) -> float | torch.Tensor:
    """A number as a float, or a tensor; in [low, high], or above ``low`` if ``high`` is infinite."""
    if isinstance(value, (Real, np.number)):
        return check.check_range(name, value, low, high)  # pyright: ignore[reportArgumentType]
    if not isinstance(value, (torch.Tensor, np.ndarray)):
        raise TypeError(f"{name} must be a number or a tensor, got {value!r}.")
    tensor: Any = real_tensor(name, value)
    if has_values(tensor):
        for extreme in (tensor.detach().amin(), tensor.detach().amax()) if tensor.numel() else ():
            check.check_range(name, extreme.item(), low, high)
    return tensor


def real_tensor(name: str, value: Any) -> torch.Tensor | None:
    """The value as a tensor of real numbers, or None."""
    if value is None or isinstance(value, torch.nn.Parameter):
        return value
    if isinstance(value, (bool, str)):
        raise TypeError(f"{name} must be a tensor of real numbers, got {value!r}.")
    tensor = torch.as_tensor(value)
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {tensor.dtype}.")
    return tensor


def has_values(tensor: torch.Tensor) -> bool:
    """Whether the values can be read: not on the meta device, and not while tracing."""
    return not tensor.is_meta and load_backend("torch").is_concrete(tensor)


def per_class(name: str, value: Any) -> torch.Tensor | None:
    tensor = real_tensor(name, value)
    if tensor is not None and tensor.dim() != 1:
        raise ValueError(f"{name} must have shape (classes,), one number per class; got shape {tuple(tensor.shape)}.")
    return tensor


def axis_of(logits: torch.Tensor, axis: int | None) -> int:
    return min(1, logits.dim() - 1) if axis is None else axis
