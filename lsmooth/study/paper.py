"""The results of Müller, Kornblith and Hinton (2019), for comparison."""

from __future__ import annotations

CITATION = (
    "Rafael Müller, Simon Kornblith, Geoffrey Hinton: When Does Label Smoothing Help? "
    "Advances in Neural Information Processing Systems 32, 2019."
)

ACCURACY = (
    ("AlexNet, CIFAR-10", "86.8", "86.7"),
    ("ResNet-56, CIFAR-100", "72.1", "72.7"),
    ("Inception-v4, ImageNet", "80.9", "80.9"),
)
"""Network and data; accuracy in percent without smoothing, and with 0.1."""

DISTILLATION = (("hard labels and dropout", "0.67", "0.74"), ("smoothed labels", "0.59", "0.91"))
"""MNIST: how the teacher was trained; its error in percent, and its student's."""

ECE = (
    ("ResNet-56, CIFAR-100", "0.150", "0.021 (1.9)", "0.024 (0.05)"),
    ("Inception-v4, ImageNet", "0.071", "0.022 (1.4)", "0.035 (0.1)"),
    ("Transformer, English to German", "0.056", "0.018 (1.13)", "0.019 (0.1)"),
)
"""Network and data; ECE with hard labels, after a temperature (T), with smoothing (alpha)."""
