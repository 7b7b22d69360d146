"""TensorFlow: a digit classifier in Keras, trained on smoothed integer labels."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
from sklearn.datasets import load_digits

from lsmooth.integrations.keras import SparseCategoricalCrossentropy


def main(epochs: int = 5) -> list[float]:
    """Train on the whole data set and print the loss as it falls."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
    loss = SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    history = model.fit(digits.data / 16.0, digits.target, batch_size=128, epochs=epochs, verbose=0)
    losses = history.history["loss"]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
