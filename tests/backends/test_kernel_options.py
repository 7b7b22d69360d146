"""Options of the loss kernels: values off their defaults, and the axes of arrays."""

import numpy as np
import pytest

from lsmooth.backends import load_backend
from lsmooth.backends.options import (
    DivergenceOptions,
    SigmoidOptions,
    SoftmaxOptions,
    are_known,
    with_arrays,
    without_arrays,
)
from lsmooth.testing import _kernels

EVERY = (SoftmaxOptions, SigmoidOptions, DivergenceOptions)


@pytest.mark.parametrize("options", EVERY)
def test_defaults_are_known_to_every_kernel(options):
    assert are_known(options(), ())


@pytest.mark.parametrize("options", EVERY)
def test_an_option_off_its_default_must_be_known(options):
    """Numbers, arrays and names; even an array that equals the default."""
    for name, default in options._field_defaults.items():
        others = [np.zeros(3), np.asarray(default) if isinstance(default, float) else "another"]
        others += [not default] if isinstance(default, bool) else [2.5]
        for value in others:
            changed = options()._replace(**{name: value})
            assert not are_known(changed, set(options._fields) - {name})
            assert are_known(changed, (name,))


@pytest.mark.parametrize("options", EVERY)
def test_every_place_of_an_array_is_that_of_one_option(options):
    places = (*options.ALONG_ROWS, *options.ALONG_CLASSES)
    assert len(set(places)) == len(places)
    assert set(places) <= set(options._fields)


def test_arrays_are_taken_out_and_put_back():
    xp = load_backend("numpy")
    eps, weight, counted = np.zeros(4), np.ones(3), np.ones(4, bool)
    options = SoftmaxOptions(eps, class_weight=weight, temperature=2.0, counted=counted, total=True)
    numbers, rows, classes = without_arrays(xp, options)
    assert numbers == SoftmaxOptions(temperature=2.0, total=True)
    assert hash(numbers) == hash(SoftmaxOptions(temperature=2.0, total=True))
    assert rows.keys() == {"label_smoothing", "counted"}
    assert classes.keys() == {"class_weight"}
    again = with_arrays(numbers, {"labels": np.zeros(4), **rows}, classes)
    assert all(x is y for x, y in zip(again, options, strict=True))
    behind = {"soft." + name: x for name, x in rows.items()}
    assert with_arrays(numbers, behind, prefix="soft.").counted is counted
    assert with_arrays(numbers, behind) == numbers


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (SoftmaxOptions, _kernels._SOFTMAX_VALUES),
        (SigmoidOptions, _kernels._SIGMOID_VALUES),
        (DivergenceOptions, _kernels._DIVERGENCE_VALUES),
    ],
)
def test_check_backend_tries_every_option(options, values):
    assert values.keys() == set(options._fields)


@pytest.mark.parametrize("options", EVERY)
def test_every_option_that_may_be_an_array_lies_along_rows_or_classes(options):
    arrays = {name for name, kind in options.__annotations__.items() if "Array" in str(kind)}
    assert arrays == {*options.ALONG_ROWS, *options.ALONG_CLASSES}


def test_an_array_that_lies_along_nothing_is_an_error():
    with pytest.raises(NotImplementedError, match="z_loss"):
        without_arrays(load_backend("numpy"), SoftmaxOptions(z_loss=np.zeros(3)))
