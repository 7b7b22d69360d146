"""``torch.nn`` and ``torch.optim``."""
# ruff: noqa: D102 (documented in lsmooth.study.trainers.base)

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from lsmooth.study.config import Training
from lsmooth.study.trainers.base import Objective, batches, layer_sizes


class TorchNetwork(nn.Module):
    """Linear layers with ReLUs between; Glorot's initial weights, as in the other frameworks."""

    def __init__(self, sizes: tuple[int, ...], seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.hidden = nn.Sequential()
        for rows, columns in pairwise(sizes[:-1]):
            self.hidden.extend([nn.Linear(rows, columns), nn.ReLU()])
        self.output = nn.Linear(sizes[-2], sizes[-1])
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.hidden(x))

    @torch.no_grad()
    def logits(self, inputs: np.ndarray) -> torch.Tensor:
        return self(torch.from_numpy(inputs))

    @torch.no_grad()
    def features(self, inputs: np.ndarray) -> torch.Tensor:
        return self.hidden(torch.from_numpy(inputs))

    def output_weight(self) -> torch.Tensor:
        return self.output.weight.detach()


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: networks this small are up to fifty times slower with several on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class TorchTrainer:
    """`Trainer` over PyTorch, on the CPU."""

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    @one_thread()
    def train(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        objective: Objective,
        setting: float,
        *,
        num_classes: int,
        seed: int,
        training: Training,
        after_round: Callable[[TorchNetwork], None],
    ) -> TorchNetwork:
        network = TorchNetwork(layer_sizes(inputs, num_classes, training), seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
        x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
        for steps in torch.from_numpy(batches(len(inputs), training, seed)):
            for rows in steps:
                optimizer.zero_grad()
                objective(y[rows], network(x[rows]), setting).backward()
                optimizer.step()
            after_round(network)
        return network


TRAINER = TorchTrainer()
