"""The conformance suite: passed by the built-in backends, and by one of a few lines; failed by a planted error."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from conftest import ALL_BACKENDS

import lsmooth
from lsmooth.backends import Backend, backend_of, installed_backends, load_backend, register_backend, registry
from lsmooth.backends.numpy import NumpyBackend
from lsmooth.backends.options import DIVERGENCE, SIGMOID, SOFTMAX
from lsmooth.losses import softmax_cross_entropy
from lsmooth.testing import check_backend, reference


class Boxed(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of an unknown framework."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if any(isinstance(x, np.ndarray) for x in inputs):
            return NotImplemented
        return Boxed(getattr(ufunc, method)(*map(unboxed, inputs), **kwargs))

    def __getitem__(self, index):
        return Boxed(self.values[index])


def unboxed(x):
    return x.values if isinstance(x, Boxed) else x


PLAIN = NumpyBackend()


class BoxedBackend(Backend):
    """A third party's backend."""

    name = "boxed"

    def is_array(self, x):
        return isinstance(x, Boxed)

    def asarray(self, x, dtype=None, like=None):
        return Boxed(np.asarray(unboxed(x), dtype))

    def to_numpy(self, x):
        return PLAIN.to_numpy(x.values)

    def dtype(self, x):
        return x.values.dtype.name

    def shape(self, x):
        return x.values.shape

    def is_concrete(self, x):
        return True

    def value_and_grad(self, function, x):
        """Central differences."""
        gradient = np.zeros(x.values.shape)
        for index in np.ndindex(gradient.shape):
            step = np.zeros_like(gradient)
            step[index] = 1e-4
            sides = (unboxed(function(Boxed((x.values + s * step).astype(x.values.dtype)))) for s in (1.0, -1.0))
            gradient[index] = np.subtract(*map(np.float64, sides)) / 2e-4
        return function(x), Boxed(gradient.astype(x.values.dtype))


def delegate(name):
    """An operation that unboxes its arguments, calls NumPy and boxes the result."""

    def method(self, *args, **kwargs):
        return Boxed(getattr(PLAIN, name)(*map(unboxed, args), **kwargs))

    return method


OPERATIONS = sorted(Backend.__abstractmethods__ - vars(BoxedBackend).keys())
for operation in OPERATIONS:
    setattr(BoxedBackend, operation, delegate(operation))
BoxedBackend.__abstractmethods__ = frozenset()


class ValuesOnly(BoxedBackend):
    """Computes no gradients, like NumPy."""

    name = "values_only"
    value_and_grad = Backend.value_and_grad


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    monkeypatch.setattr(registry, "_backend_of_type", dict(registry._backend_of_type))


def test_built_in_backends_pass(backend):
    check_backend(backend)


def test_a_third_party_backend_passes():
    check_backend(ValuesOnly())


def test_once_registered_its_arrays_are_dispatched_to_it():
    xp = register_backend(BoxedBackend())
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    value = softmax_cross_entropy([0, 2], Boxed(logits), label_smoothing=0.1)
    assert isinstance(value, Boxed)
    np.testing.assert_allclose(
        xp.to_numpy(value), reference.softmax_cross_entropy([0, 2], logits, label_smoothing=0.1)[0], rtol=1e-12
    )
    assert "boxed" in installed_backends()
    with lsmooth.use_backend("boxed"):
        assert isinstance(softmax_cross_entropy([0, 2], logits), Boxed)
    with pytest.raises(TypeError, match=r"convert .* boxed"):
        backend_of(labels=Boxed([0]), logits=load_backend(_a_framework()).asarray([[1.0, 2.0]]))


def _a_framework():
    found = [name for name in installed_backends() if name in ALL_BACKENDS and name != "numpy"]
    if not found:
        pytest.skip("no framework is installed whose tensors could meet it")
    return found[0]


def test_an_entry_point_registers_a_backend(monkeypatch):
    """Its class is loaded by the first of its arrays, or by name."""
    import importlib.metadata

    module = type(lsmooth)("boxed_for_lsmooth")
    module.BoxedBackend = BoxedBackend
    monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
    point = EntryPoint("boxed", f"{module.__name__}:BoxedBackend", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == registry.ENTRY_POINT_GROUP else []
    )
    assert "boxed" in installed_backends()
    assert isinstance(softmax_cross_entropy([0], Boxed([[1.0, 2.0]])), Boxed)
    assert load_backend("boxed").name == "boxed"
    lsmooth.set_backend("boxed")
    assert lsmooth.get_backend() == "boxed"
    lsmooth.set_backend(None)


def test_objects_that_are_not_backends_are_refused():
    with pytest.raises(TypeError, match=r"instance of lsmooth\.backends\.Backend, got"):
        check_backend(BoxedBackend)
    with pytest.raises(TypeError, match=r"instance of lsmooth\.backends\.Backend, got str"):
        register_backend("numpy")


@pytest.mark.parametrize("name", sorted(Backend.__abstractmethods__))
def test_a_missing_operation_is_found(name):
    def missing(self, *args, **kwargs):
        raise NotImplementedError("not written yet")

    broken = type("Broken", (NumpyBackend,), {name: missing})()
    with pytest.raises((AssertionError, NotImplementedError)):
        check_backend(broken)


def wrong(name, function):
    """A NumPy backend with a wrong ``name``."""
    return type("Wrong", (NumpyBackend,), {name: function})()


PLANTED = {
    "asarray rounds": wrong("asarray", lambda self, x, dtype=None, like=None: np.asarray(np.float32(x), dtype)),
    "cast does nothing": wrong("cast", lambda self, x, dtype: x),
    "dtype says float64": wrong("dtype", lambda self, x: "float64"),
    "shape as a list": wrong("shape", lambda self, x: list(x.shape)),
    "size of one axis": wrong("size", lambda self, x: len(x)),
    "ones_like in float64": wrong("ones_like", lambda self, x, dtype: np.ones(x.shape)),
    "one_hot wraps around": wrong("one_hot", lambda self, i, n, dtype: np.eye(n, dtype=dtype)[i % n]),
    "exp2": wrong("exp", lambda self, x: np.exp2(x)),
    "log of 0 is large": wrong("log", lambda self, x: np.log(np.maximum(x, 1e-7, dtype=x.dtype))),
    "tanh is the identity": wrong("tanh", lambda self, x: x),
    "softplus is relu in the tail": wrong(
        "softplus", lambda self, x: np.where(x < -20, 0, np.logaddexp(x, 0)).astype(x.dtype)
    ),
    "softplus overflows": wrong("softplus", lambda self, x: np.log1p(np.exp(x))),
    "ceil is floor": wrong("ceil", lambda self, x: np.floor(x)),
    "where the other way": wrong("where", lambda self, c, x, y: np.where(c, y, x)),
    "sum keeps dimensions": wrong("sum", lambda self, x, axis=None: np.sum(x, axis, keepdims=True)),
    "sum of everything": wrong("sum", lambda self, x, axis=None: np.sum(x)),
    "max is min": wrong("max", lambda self, x, axis: np.min(x, axis)),
    "argmax gives the last": wrong("argmax", lambda self, x, axis: x.shape[axis] - 1 - np.argmax(x[..., ::-1], axis)),
    "logsumexp overflows": wrong("logsumexp", lambda self, x, axis: np.log(np.sum(np.exp(x), axis))),
    "logsumexp of masked is NaN": wrong(
        "logsumexp", lambda self, x, axis: np.log(np.exp(x - x.max(axis, keepdims=True)).sum(axis)) + x.max(axis)
    ),
    "the mean counts masked classes": wrong(
        "unmasked_mean", lambda self, x, shift: np.mean(np.where(x > -np.inf, x - shift[..., None], 0), -1)
    ),
    "moveaxis swaps": wrong("moveaxis", lambda self, x, a, b: np.swapaxes(x, a, b)),
    "reshape by columns": wrong("reshape", lambda self, x, shape: x.reshape(shape, order="F")),
    "take of columns": wrong("take", lambda self, table, index: np.take(table, index, -1)),
    "pick of rows": wrong("pick", lambda self, x, index: x[..., 0]),
    "top knows the last of equal entries": wrong(
        "top", lambda self, x, i: (x.max(-1), x.shape[-1] - 1 - x[..., ::-1].argmax(-1) == i)
    ),
    "top takes every maximum": wrong(
        "top", lambda self, x, i: (x.max(-1), np.take_along_axis(x, i[..., None], -1)[..., 0] == x.max(-1))
    ),
    "top passes over NaN": wrong("top", lambda self, x, i: (np.fmax.reduce(x, -1), x.argmax(-1) == i)),
    "bincount counts": wrong("bincount", lambda self, i, w, n: np.bincount(i, None, n).astype(w.dtype)),
    "argsort downwards": wrong("argsort", lambda self, x: np.argsort(-x, kind="stable")),
    "argsort of columns": wrong("argsort", lambda self, x: np.argsort(x, axis=0, kind="stable")),
    "cumsum less the first": wrong("cumsum", lambda self, x: np.cumsum(x, axis=-1) - x[..., :1]),
    "cumsum of the flat array": wrong("cumsum", lambda self, x: np.cumsum(x)),
    "searchsorted has one side": wrong("searchsorted", lambda self, x, v, side: np.searchsorted(x, v)),
    "stop_gradient gives zeros": wrong("stop_gradient", lambda self, x: 0 * x),
    "a kernel without temperature": wrong(
        "softmax_cross_entropy",
        lambda self, z, y, options=SOFTMAX: NumpyBackend.softmax_cross_entropy(
            self, z, y, options._replace(temperature=1.0)
        ),
    ),
    "a kernel that smooths twice": wrong(
        "softmax_cross_entropy",
        lambda self, z, y, options=SOFTMAX: NumpyBackend.softmax_cross_entropy(
            self, z, y, options._replace(label_smoothing=2 * options.label_smoothing)
        ),
    ),
    "a kernel without pos_weight": wrong(
        "sigmoid_cross_entropy",
        lambda self, z, y, options=SIGMOID: NumpyBackend.sigmoid_cross_entropy(
            self, z, y, options._replace(pos_weight=None)
        ),
    ),
    "a divergence of zeros": wrong(
        "softmax_divergence",
        lambda self, t, s, options=DIVERGENCE: 0 * NumpyBackend.softmax_divergence(self, t, s, options),
    ),
    "one divergence for all": wrong(
        "softmax_divergence",
        lambda self, t, s, options=DIVERGENCE: NumpyBackend.softmax_divergence(
            self, t, s, options._replace(divergence="forward_kl")
        ),
    ),
    "a joint kernel without its soft part": wrong(
        "hard_and_soft", lambda self, y, t, s, hard, soft: self.softmax_cross_entropy(s, y, hard)
    ),
    "blocks that leave out a last row": wrong(
        "linear_rows",
        lambda self, loss, call, block_size=None: NumpyBackend.linear_rows(
            self, loss, call.map_rows(lambda x: x[:-1]) if block_size == 2 else call, block_size
        ),
    ),
    **{
        f"statistics without {name}": wrong(
            "softmax_cross_entropy_with_statistics",
            lambda self, z, y, options=SOFTMAX, name=name: NumpyBackend.softmax_cross_entropy_with_statistics(
                self, z, y, options._replace(**{name: getattr(SOFTMAX, name)})
            ),
        )
        for name in ("temperature", "logit_softcap", "counted", "num_classes")
    },
    "no @": wrong("moveaxis", lambda self, x, a, b: np.moveaxis(x, a, b) if x.ndim > 2 else x),
    **{
        f"a softmax kernel without {name}": wrong(
            "softmax_cross_entropy",
            lambda self, z, y, options=SOFTMAX, name=name: NumpyBackend.softmax_cross_entropy(
                self, z, y, options._replace(**{name: getattr(SOFTMAX, name)})
            ),
        )
        for name in SOFTMAX._fields
    },
    **{
        f"a sigmoid kernel without {name}": wrong(
            "sigmoid_cross_entropy",
            lambda self, z, y, options=SIGMOID, name=name: NumpyBackend.sigmoid_cross_entropy(
                self, z, y, options._replace(**{name: getattr(SIGMOID, name)})
            ),
        )
        for name in SIGMOID._fields
    },
    **{
        f"a divergence without {name}": wrong(
            "softmax_divergence",
            lambda self, t, s, options=DIVERGENCE, name=name: NumpyBackend.softmax_divergence(
                self, t, s, options._replace(**{name: getattr(DIVERGENCE, name)})
            ),
        )
        for name in DIVERGENCE._fields
        if name != "constant_teacher"  # a hint, which changes no number
    },
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("broken", PLANTED.values(), ids=PLANTED)
def test_a_planted_error_is_found(broken):
    with pytest.raises(AssertionError, match="numpy backend"):
        check_backend(broken)


def test_a_planted_error_in_a_gradient_is_found(differentiable_backend, monkeypatch):
    """The message names the operation, its result and the expected one."""
    true = type(differentiable_backend).value_and_grad
    monkeypatch.setattr(
        type(differentiable_backend),
        "value_and_grad",
        lambda self, function, x: (lambda pair: (pair[0], 2.0 * pair[1]))(true(self, function, x)),
    )
    with pytest.raises(AssertionError, match=r"the gradient of exp gave \[.*\], expected \[.*\]"):
        check_backend(differentiable_backend)
