"""Run by test_torch_integration.py, once a process: trains on this process's rows, prints its losses and parameters."""

import json
import sys

import torch

from lsmooth.integrations.torch import CrossEntropyLoss


class Scored(torch.nn.Module):
    """A model whose loss is part of it: its buffers and its temperature are DistributedDataParallel's too."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 5)
        temperature = torch.nn.Parameter(torch.tensor(1.5))
        self.loss = CrossEntropyLoss(torch.full((5,), 2.0), label_smoothing=0.1, temperature=temperature)

    def forward(self, x, target):
        return self.loss(self.head(x), target)


rank, size, meeting_point = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
x, target = torch.randn(12, 4), torch.randint(5, (12,))
torch.manual_seed(rank)  # each process starts from weights of its own, and is given those of the first
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=size)
model = torch.nn.parallel.DistributedDataParallel(Scored())
optimizer, losses = torch.optim.SGD(model.parameters(), 0.5), []
for _ in range(5):
    optimizer.zero_grad()
    loss = model(x[rank::size], target[rank::size])
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
parameters = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
# In order, and together: a process that ends while gloo's threads are at work is aborted.
del model, optimizer, loss
torch.distributed.barrier()
torch.distributed.destroy_process_group()
print(json.dumps({"losses": losses, "parameters": parameters.tolist()}))
