"""PyTorch: a digit classifier in torch.nn, trained on smoothed labels."""

import torch
from sklearn.datasets import load_digits

from lsmooth.losses import softmax_cross_entropy


def main(steps: int = 60) -> list[float]:
    """Train on the whole data set and print the loss as it falls."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = softmax_cross_entropy(labels, model(images), label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
