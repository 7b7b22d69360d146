"""TensorFlow: a digit classifier in Keras, trained on smoothed integer labels."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

from lsmooth.losses import softmax_cross_entropy


def smoothed_loss(labels, logits):
    """A loss as Keras takes one: what is true, which Keras makes floating point, then what is predicted."""
    return softmax_cross_entropy(tf.cast(labels[:, 0], "int64"), logits, label_smoothing=0.1, reduction="none")


def main(epochs: int = 5) -> list[float]:
    """Train on the whole data set and print the loss as it falls."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=smoothed_loss)
    history = model.fit(digits.data / 16.0, digits.target[:, None], batch_size=128, epochs=epochs, verbose=0)
    losses = history.history["loss"]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
