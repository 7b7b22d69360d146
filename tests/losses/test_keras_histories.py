"""A Keras model that ends in an activation trains under these losses as under Keras' own."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import losses

keras = pytest.importorskip("keras")
datasets = pytest.importorskip("sklearn.datasets")

SOFTMAX = ("SparseCategoricalCrossentropy", "CategoricalCrossentropy")
SIGMOID = ("BinaryCrossentropy", "BinaryFocalCrossentropy")


def history(loss, units, activation, features, labels):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(units, activation=activation)])
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model.fit(features, labels, epochs=3, batch_size=64, shuffle=False, verbose=0).history["loss"]


@pytest.mark.parametrize("name", [*SOFTMAX, *SIGMOID])
def test_the_history_on_digits_matches_keras(name):
    """On pixels in [0, 1]: raw ones make a step so long that a change of 1e-7 of them alters Keras' losses by 20%."""
    require_backend("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    features, labels = datasets.load_digits(return_X_y=True)
    features = (features / 16).astype(np.float32)
    if name in SIGMOID:
        labels, units, activation = (labels < 5).astype(np.float32)[:, None], 1, "sigmoid"
    else:
        units, activation = 10, "softmax"
        labels = labels if name.startswith("Sparse") else np.eye(10, dtype=np.float32)[labels]
    arguments = units, activation, features, labels
    ours, theirs = (history(getattr(module, name)(), *arguments) for module in (losses, keras.losses))
    assert theirs[-1] < 0.9 * theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
