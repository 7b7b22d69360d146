"""Run by test_torch_training.py, once a process: engines train on this process's rows; compared with all rows."""

import copy

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch_process import error, meet, part, rank, size

from lsmooth.distillation import distillation_loss
from lsmooth.integrations.torch import CrossEntropyLoss
from lsmooth.losses import linear_softmax_cross_entropy

STEPS, CLASSES, FEATURES = 5, 6, 4
ENDS = {1: (0, 16), 2: (0, 11, 16), 4: (0, 1, 8, 10, 16)}[size]

meet()
world = dist.group.WORLD
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
x, target, teacher = torch.randn(16, FEATURES), torch.randint(CLASSES, (16,)), torch.randn(16, CLASSES)
target[[0, 2, 3, 9, 12]] = -100  # so that the numbers of rows and of counted rows differ between processes
PER_CLASS = torch.linspace(0.5, 2.0, CLASSES)
mine = slice(ENDS[rank], ENDS[rank + 1])


class Scored(torch.nn.Module):
    """A model that contains its losses, with a trained temperature."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(FEATURES, 8), torch.nn.Linear(8, CLASSES)
        self.temperature = torch.nn.Parameter(torch.tensor([1.5]))

    def forward(self, x, target, teacher, row_shards):
        hidden = self.body(x).tanh()
        loss = CrossEntropyLoss(PER_CLASS, label_smoothing=0.1, temperature=self.temperature, row_shards=row_shards)
        hard = loss(self.head(hidden), target)
        soft = distillation_loss(
            teacher, self.head(hidden), labels=target, ignore_index=-100, temperature=2.0, row_shards=row_shards
        )
        linear = linear_softmax_cross_entropy(
            target, hidden, self.head.weight, self.head.bias, ignore_index=-100, z_loss=0.1, row_shards=row_shards
        )
        return hard + soft + linear


def trained(model, rows, row_shards=None, factor=1.0):
    """The losses of some steps, and the parameters after them."""
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.3, momentum=0.5), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(x[rows], target[rows], teacher[rows], row_shards)
        (factor * loss).backward()
        optimizer.step()
        losses.append(loss.detach())
    found = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return [torch.stack(losses), *[p.detach() for p in found]]


def summed():
    """Plain modules, with gradients all-reduced explicitly."""
    model = copy.deepcopy(start)
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: dist.all_reduce(p.grad))
    return trained(model, mine, world)


def data_parallel():
    """DistributedDataParallel averages gradients."""
    return trained(torch.nn.parallel.DistributedDataParallel(copy.deepcopy(start)), mine, world, size)


def fully_sharded():
    """FSDP2 averages gradients."""
    model = copy.deepcopy(start)
    fully_shard(model.body)
    fully_shard(model)
    return trained(model, mine, world, size)


start = Scored()
alone = trained(copy.deepcopy(start), slice(None))
engines = {"summed": summed, "DDP": data_parallel, "FSDP2": fully_sharded}
found = {name: error(engine(), alone) for name, engine in engines.items()}
part({"errors": found, "losses": alone[0].tolist()})
