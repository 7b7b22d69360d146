"""The options of the loss kernels, as types: an option is named once, with its default and its place.

A kernel gets all options and states which of them it knows. A call with any other option off its default
uses the formula, which knows all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend


class SoftmaxOptions(NamedTuple):
    """Options of `formulas.softmax_cross_entropy`; the defaults are the plain loss of each row."""

    label_smoothing: float | Array = 0.0
    """eps, a float, or an array that broadcasts to the rows."""
    prior: Array | None = None
    """u, (classes,), the distribution over which the smoothing mass is spread; uniform if None."""
    class_weight: Array | None = None
    """w, (classes,)."""
    temperature: float | Array = 1.0
    """T, a float, or an array that broadcasts to the rows."""
    z_loss: float = 0.0
    """a, the weight of the squared log-sum-exp."""
    logit_softcap: float | None = None
    """c; ``c tanh(z / c)`` replaces the logits."""
    counted: Array | None = None
    """(...) bool; the other rows have loss 0 and a zero gradient, whatever their values."""
    scale: float | Array | None = None
    """Multiplies the rows: a float, or an array that broadcasts to them."""
    total: bool = False
    """Whether to return the sum of the rows instead of the rows."""
    gamma: float = 0.0
    """The focus of the focal loss: multiplies the cost of each class by ``(1 - p_k)^gamma``."""
    num_classes: int | None = None
    """The logits from there on are padding; ``prior``, ``class_weight`` and distributions have none."""

    ALONG_ROWS = ("label_smoothing", "temperature", "counted", "scale")
    ALONG_CLASSES = ("prior", "class_weight")
    # The options that do not change the softmax, nor which rows count: statistics of the softmax depend on the others.
    OF_LOSS = ("label_smoothing", "prior", "class_weight", "z_loss", "scale", "total", "gamma")


class SigmoidOptions(NamedTuple):
    """Options of `formulas.sigmoid_cross_entropy`; the defaults are the plain loss of each element."""

    label_smoothing: float | Array = 0.0
    """eps, a float, or an array that broadcasts to the logits."""
    pos_weight: Array | None = None
    """w, broadcasts to the logits."""
    counted: Array | None = None
    """bool, of the logits' shape; the other elements have loss 0 and a zero gradient, whatever their values."""
    scale: float | Array | None = None
    """Multiplies the elements: a float, or an array that broadcasts to them."""
    total: bool = False
    """Whether to return the sum of the elements instead of the elements."""
    gamma: float = 0.0
    """The focus of the focal loss: multiplies an element by its error's power; not beside ``pos_weight``."""
    alpha: float | None = None
    """The weight of the positives, 1 - alpha that of the negatives."""

    ALONG_ROWS = ("label_smoothing", "pos_weight", "counted", "scale")
    ALONG_CLASSES = ()


class DivergenceOptions(NamedTuple):
    """Options of `formulas.softmax_divergence`; the defaults are the forward KL of each row."""

    divergence: str = "forward_kl"
    """A key of `divergence.DIVERGENCES`."""
    parameter: float = 0.5
    """beta of ``"jensen_shannon"``, alpha of ``"alpha"``."""
    temperature: float | Array = 1.0
    """T, a float, or an array that broadcasts to the rows."""
    counted: Array | None = None
    """(...) bool; the other rows have loss 0 and a zero gradient, whatever their values."""
    scale: float | Array | None = None
    """Multiplies the rows: a float, or an array that broadcasts to them."""
    total: bool = False
    """Whether to return the sum of the rows instead of the rows."""
    constant_teacher: bool = False
    """Whether the teacher's logits are known to need no gradient."""

    ALONG_ROWS = ("temperature", "counted", "scale")
    ALONG_CLASSES = ()


# Numbers at which formulas leave something out. A program takes the others as arguments, so that it serves all of them.
LEFT_OUT = {"label_smoothing": 0.0, "temperature": 1.0, "z_loss": 0.0, "gamma": 0.0, "scale": 1.0}

# The defaults: the plain losses.
SOFTMAX, SIGMOID, DIVERGENCE = SoftmaxOptions(), SigmoidOptions(), DivergenceOptions()

Options = SoftmaxOptions | SigmoidOptions | DivergenceOptions
AnyOptions = TypeVar("AnyOptions", SoftmaxOptions, SigmoidOptions, DivergenceOptions)


def are_known(options: Options, known: Collection[str]) -> bool:
    """Whether every option that is off its default is among those that a kernel knows."""
    for name, value, default in zip(options._fields, options, type(options)(), strict=True):
        # Compare the types first: `!=` of an array would compare its elements.
        if name not in known and value is not default and not (type(value) is type(default) and value == default):
            return False
    return True


def without_arrays(xp: Backend, options: AnyOptions) -> tuple[AnyOptions, dict[str, Array], dict[str, Array]]:
    """The options with every array at its default, the arrays along the rows, and those along the classes."""
    arrays = {name: x for name, x in zip(options._fields, options, strict=True) if xp.is_array(x)}
    for name in arrays:
        if name not in options.ALONG_ROWS and name not in options.ALONG_CLASSES:
            raise NotImplementedError(
                f"{name} is an array, and {type(options).__name__} does not say what it is along."
            )
    defaults = type(options)()
    numbers = options._replace(**{name: getattr(defaults, name) for name in arrays})
    rows = {name: arrays[name] for name in options.ALONG_ROWS if name in arrays}
    classes = {name: arrays[name] for name in options.ALONG_CLASSES if name in arrays}
    return numbers, rows, classes


def with_arrays(options: AnyOptions, *values: Mapping[str, Any], prefix: str = "") -> AnyOptions:
    """The options with the values of the same names, after a prefix; other names are ignored."""
    names = {prefix + name: name for name in options._fields}
    return options._replace(**{names[key]: x for some in values for key, x in some.items() if key in names})


def without_numbers(x: Any, numbers: list[Any], left_out: Mapping[str, float] = LEFT_OUT, name: str = "") -> Any:
    """Move the floats of nested tuples to ``numbers``, `float` in their place, except those that are left out."""
    if isinstance(x, float):
        if name in left_out and x == left_out[name]:
            return x
        numbers.append(x)
        return float
    if not isinstance(x, tuple):
        return x
    names = getattr(x, "_fields", ("",) * len(x))
    return _rebuilt(x, [without_numbers(each, numbers, left_out, name) for name, each in zip(names, x, strict=True)])


def with_numbers(x: Any, numbers: Iterator[Any]) -> Any:
    """Reverse `without_numbers`; the numbers may be arrays."""
    if x is float:
        return next(numbers)
    return _rebuilt(x, [with_numbers(each, numbers) for each in x]) if isinstance(x, tuple) else x


def _rebuilt(x: Any, items: list[Any]) -> Any:
    """A tuple of other items, named if ``x`` is."""
    return type(x)(*items) if hasattr(x, "_fields") else tuple(items)
