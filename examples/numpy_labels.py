"""NumPy: smooth labels, score a prediction, and see what smoothing asks of it."""

import numpy as np

from lsmooth.losses import softmax_cross_entropy
from lsmooth.smoothing import smooth_labels


def main() -> dict[str, float]:
    """Print the loss of a sure and of a moderate answer, with and without smoothing."""
    labels = np.array([2, 0])
    print(smooth_labels(labels, 0.1, num_classes=3))

    losses = {}
    for name, height in [("moderate", 3.3), ("sure", 20.0)]:
        logits = height * np.eye(3)[labels]
        for eps in (0.0, 0.1):
            loss = float(softmax_cross_entropy(labels, logits, label_smoothing=eps))
            losses[f"{name}, label_smoothing={eps}"] = loss
            print(f"{name} answers, label_smoothing={eps}: {loss:.4f}")
    return losses


if __name__ == "__main__":
    main()
