"""Run by test_keras_calibration.py in a process with KERAS_BACKEND set; prints results as JSON."""

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


class Subclassed(keras.Model):
    """A model with an activation that Keras cannot see."""

    def __init__(self, activation):
        super().__init__()
        self.dense = keras.layers.Dense(5, activation, kernel_initializer="identity")

    def call(self, inputs):
        return self.dense(inputs)


def sequential(units, activation=None):
    dense = keras.layers.Dense(units, activation, kernel_initializer="identity")
    return keras.Sequential([keras.Input((units,)), dense])


def error_of(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def probabilities(folder):
    """Models that end in a softmax: refused as logits, calibrated as probabilities, with labels of shape (N, 1)."""
    batches = [(logits[i : i + 100], labels[i : i + 100, None]) for i in (0, 100, 200)]
    model = TemperatureScaled(sequential(5, "softmax"), from_logits=False)
    hidden = TemperatureScaled(Subclassed("softmax"), from_logits=False)
    temperatures = [each.calibrate(batches).temperature_ for each in (model, hidden)]
    model.save(f"{folder}/probabilities.keras")
    loaded = keras.saving.load_model(f"{folder}/probabilities.keras")
    p = keras.ops.convert_to_numpy(model(logits))
    exp = np.exp(logits.astype("float64") / temperatures[0])
    return {
        "refused": error_of(lambda: TemperatureScaled(sequential(5, "softmax"))),
        "refused_when_calibrated": error_of(lambda: TemperatureScaled(Subclassed("softmax")).calibrate(batches)),
        "temperatures": temperatures,
        "expected": TemperatureScaling().fit(logits, labels).temperature_,
        "error": float(np.abs(p - exp / exp.sum(-1, keepdims=True)).max()),
        "loaded_error": float(np.abs(loaded.predict(logits, verbose=0) - p).max()),
    }


def one_output():
    """Models of a yes-or-no question, with labels of shape (N,)."""
    x, y = logits[:, :1], (honest[:, 0] + rng.logistic(size=300) > 0).astype("int64")
    models = [
        TemperatureScaled(sequential(1), binary=True),
        TemperatureScaled(sequential(1, "sigmoid"), from_logits=False, binary=True),
    ]
    return {
        "temperatures": [model.calibrate([(x, y)]).temperature_ for model in models],
        "expected": TemperatureScaling(binary=True).fit(x, y[:, None]).temperature_,
        "refused": error_of(lambda: TemperatureScaled(sequential(1)).calibrate([(x, y)])),
        "contradiction": error_of(lambda: TemperatureScaled(sequential(1, "sigmoid"), from_logits=False)),
    }


def masked():
    """Time steps that a layer has masked, with labels that would change the temperature."""
    tokens = rng.integers(0, 6, (60, 8))
    inputs = keras.Input((8,), dtype="int32")
    embedding = keras.layers.Embedding(6, 5, mask_zero=True, embeddings_initializer="identity")
    outputs = keras.layers.Dense(5, kernel_initializer=keras.initializers.Identity(gain=3.0))(embedding(inputs))
    model = keras.Model(inputs, outputs)
    raw = keras.ops.convert_to_numpy(model(tokens)) + 0.0
    ids = (raw / 3.0 * 2.0 + rng.gumbel(size=raw.shape)).argmax(-1)
    weight = rng.random(tokens.shape)
    kept = tokens != 0
    model = TemperatureScaled(model)
    return {
        "temperature": model.calibrate([(tokens, ids, weight)]).temperature_,
        "expected": TemperatureScaling().fit(raw[kept], ids[kept], weight[kept]).temperature_,
        "unmasked": TemperatureScaling().fit(raw, ids, weight).temperature_,
        "built": model.built,
    }


folder = sys.argv[1]
seen = {"carried": carried(f"{folder}/carried.keras"), "layer": layer(f"{folder}/layer.keras")}
seen |= {"probabilities": probabilities(folder), "one_output": one_output(), "masked": masked()}
print(json.dumps(seen))
