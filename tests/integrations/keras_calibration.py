"""Run by test_keras_calibration.py in a process whose KERAS_BACKEND is set: prints what it saw as JSON."""

import json
import sys

import keras
import numpy as np

from lsmooth.calibration import TemperatureScaling
from lsmooth.integrations.keras import Temperature, TemperatureScaled

rng = np.random.default_rng(0)
honest = 2.0 * rng.standard_normal((300, 5))
labels = (honest + rng.gumbel(size=honest.shape)).argmax(axis=1)
logits = (3.0 * honest).astype("float32")
weight = rng.random(300).astype("float32")


def base():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(5, kernel_initializer="identity")
    return keras.Sequential([keras.Input((5,)), dense, keras.layers.Dropout(0.5)])


def carried(path):
    """A model that is calibrated, saved and loaded."""
    model = TemperatureScaled(base())
    batches = [tuple(x[i : i + 100] for x in (logits, labels, weight)) for i in (0, 100, 200)]
    scaler = model.calibrate(batches)
    raw = keras.ops.convert_to_numpy(model.model(logits, training=False))
    model.save(path)
    loaded = keras.saving.load_model(path)
    return {
        "temperature": float(keras.ops.convert_to_numpy(model.scale.temperature)),
        "status": scaler.status_,
        "expected": TemperatureScaling().fit(raw, labels, weight).temperature_,
        "loaded_type": type(loaded).__name__,
        "loaded_temperature": float(keras.ops.convert_to_numpy(loaded.scale.temperature)),
        "error": float(np.abs(loaded.predict(logits, verbose=0) * scaler.temperature_ - raw).max()),
        "trainable": [variable.path.split("/")[-1] for variable in model.trainable_variables],
    }


def layer(path):
    """The layer at the end of a functional model that is trained, saved and loaded."""
    inputs = keras.Input((5,))
    model = keras.Model(inputs, Temperature(2.0)(keras.layers.Dense(5)(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    model.fit(logits, labels, epochs=1, verbose=0)
    kept = float(keras.ops.convert_to_numpy(model.layers[-1].temperature))
    model.layers[-1].temperature.assign(3.0)
    model.save(path)
    loaded = keras.saving.load_model(path)
    learned = keras.Sequential([keras.Input((5,)), Temperature(1.0, trainable=True)])
    learned.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss)
    learned.fit(logits, labels, epochs=2, verbose=0)
    return {
        "kept": kept,
        "loaded": float(keras.ops.convert_to_numpy(loaded.layers[-1].temperature)),
        "error": float(np.abs(loaded.predict(logits, verbose=0) - model.predict(logits, verbose=0)).max()),
        "learned": float(keras.ops.convert_to_numpy(learned.layers[-1].temperature)),
        "config": Temperature.from_config(Temperature(4.0, name="t").get_config()).get_config()["temperature"],
    }


folder = sys.argv[1]
print(json.dumps({"carried": carried(f"{folder}/carried.keras"), "layer": layer(f"{folder}/layer.keras")}))
