"""What the loss of a large vocabulary costs on many devices: with spread classes, and with gathered logits.

    python examples/scale_cost.py --rows 8192 --classes 262144 --class-devices 8 --row-devices 1 8 64
    python examples/scale_cost.py --measure      # the times of a logit on this machine, with PyTorch

Each group of ``class-devices`` shares the classes, and each device of it has the hidden states of all ``rows``;
there are ``row-devices`` such groups, with rows of their own. The time of a collective is its bytes over the link's
bandwidth, and one latency for each step of a tree. Computing and sending do not overlap.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass, replace

FLOAT32 = 4


@dataclass(frozen=True)
class Job:
    """A step of the head and its loss; seconds, bytes, and bytes a second."""

    rows: int = 8192
    classes: int = 262144
    features: int = 4096
    class_devices: int = 8
    row_devices: int = 1
    bytes: int = 2  # of a hidden state, a weight and a logit
    maxima: int = 2  # numbers a row in the first exchange, and in the second
    sums: int = 3
    class_link: float = 450e9
    row_link: float = 50e9
    latency: float = 10e-6
    flops: float = 400e12
    logit: float = 18e-12  # the loss and the gradient of a logit, where classes are spread
    gathered_logit: float = 1.8e-12  # where they are not

    @property
    def slice(self) -> float:
        """The classes of a device."""
        return self.classes / self.class_devices


@dataclass(frozen=True)
class Cost:
    """What a device does in a step."""

    compute: float  # seconds
    sent: float  # bytes
    sending: float  # seconds
    logits: float  # bytes, if they are held whole

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Cost(*[x + y for x, y in pairs])


def all_reduce(size: float, devices: int, link: float, latency: float) -> Cost:
    """Of ``size`` bytes: each device sends them twice, but for its own part."""
    sent = 2 * (devices - 1) / devices * size
    return Cost(0.0, sent, sent / link + 2 * math.ceil(math.log2(devices)) * latency, 0.0)


def all_gather(size: float, devices: int, link: float, latency: float) -> Cost:
    """Of ``size`` bytes on each device, which sends or passes on those of all but one."""
    sent = (devices - 1) * size
    return Cost(0.0, sent, sent / link + math.ceil(math.log2(devices)) * latency, 0.0)


def both(job: Job) -> Cost:
    """What either way needs: the sum of the hidden states' gradients, and the mean over all rows."""
    hidden = all_reduce(job.rows * job.features * job.bytes, job.class_devices, job.class_link, job.latency)
    return hidden + all_reduce(2 * FLOAT32, job.row_devices, job.row_link, job.latency)


def spread_head(job: Job) -> Cost:
    """``linear_softmax_cross_entropy(..., class_shards=, row_shards=)``, which computes the logits twice, in blocks."""
    products = 4 * 2 * job.rows * job.features * job.slice
    return _spread(job, products, 0.0)


def spread_logits(job: Job) -> Cost:
    """``softmax_cross_entropy(..., class_shards=, row_shards=)`` of a layer's output."""
    products = 3 * 2 * job.rows * job.features * job.slice
    return _spread(job, products, job.rows * job.slice * job.bytes)


def _spread(job: Job, products: float, logits: float) -> Cost:
    cost = Cost(products / job.flops + job.rows * job.slice * job.logit, 0.0, 0.0, logits) + both(job)
    for numbers in (job.maxima, job.sums):
        cost += all_reduce(FLOAT32 * job.rows * numbers, job.class_devices, job.class_link, job.latency)
    return cost


def gathered_logits(job: Job) -> Cost:
    """Each device computes its slice of the logits, gathers the others, and then the whole loss."""
    products = 3 * 2 * job.rows * job.features * job.slice
    seconds = products / job.flops + job.rows * job.classes * job.gathered_logit
    own = Cost(seconds, 0.0, 0.0, job.rows * job.classes * job.bytes)
    slices = all_gather(job.rows * job.slice * job.bytes, job.class_devices, job.class_link, job.latency)
    return own + slices + both(job)


def weight_gradient(job: Job) -> Cost:
    """The sum of the weight's gradients over the groups, which data-parallel training needs either way."""
    return all_reduce(job.slice * job.features * job.bytes, job.row_devices, job.row_link, job.latency)


def table(jobs: list[Job]) -> str:
    """A line for each job and way."""
    lines = [
        "| devices | way | computing, ms | sent, MB | sending, ms | step, ms | logits held, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for job in jobs:
        for way in (spread_head, spread_logits, gathered_logits):
            cost = way(job)
            name = way.__name__.replace("_", " ")
            numbers = (
                cost.compute * 1e3,
                cost.sent / 1e6,
                cost.sending * 1e3,
                (cost.compute + cost.sending) * 1e3,
                cost.logits / 1e9,
            )
            cells = [str(job.class_devices * job.row_devices), name]
            lines.append("| " + " | ".join([*cells, *(f"{x:.3g}" if x < 1000 else f"{x:.0f}" for x in numbers)]) + " |")
    return "\n".join(lines)


def measured_logits(rows: int = 256, classes: int = 32768, repeats: int = 7) -> tuple[float, float]:
    """`Job.logit` and `Job.gathered_logit` of PyTorch on this machine: the least of some runs."""
    import torch

    from lsmooth.losses import softmax_cross_entropy

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    logits, labels = torch.randn(rows, classes, requires_grad=True), torch.arange(rows) % classes
    least = []
    for group in (torch.distributed.group.WORLD, None):
        seconds = []
        for _ in range(repeats):
            logits.grad = None
            begin = time.perf_counter()
            softmax_cross_entropy(labels, logits, label_smoothing=0.1, class_shards=group).backward()
            seconds.append(time.perf_counter() - begin)
        least.append(min(seconds) / (rows * classes))
    torch.distributed.destroy_process_group()
    return least[0], least[1]


def main(arguments: list[str] | None = None) -> list[Job]:
    """Print the table of the arguments' jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = ("class_devices", "row_devices")
    for name, value in vars(Job()).items():
        option = f"--{name.replace('_', '-')}"
        if name in several:
            parser.add_argument(option, type=int, nargs="+", default=[8] if name == "class_devices" else [1, 8, 64])
        else:
            parser.add_argument(option, type=type(value), default=value)
    parser.add_argument("--measure", action="store_true", help="measure the times of a logit here")
    given = vars(parser.parse_args(arguments or []))
    if given.pop("measure"):
        given["logit"], given["gathered_logit"] = measured_logits()
        print(f"--logit {given['logit']:.3g} --gathered-logit {given['gathered_logit']:.3g}")
    one = replace(Job(), **{name: x for name, x in given.items() if name not in several})
    jobs = [
        replace(one, class_devices=classes, row_devices=rows)
        for classes in given["class_devices"]
        for rows in given["row_devices"]
    ]
    print(table(jobs))
    for job in jobs:
        if job.row_devices > 1:
            cost = weight_gradient(job)
            devices = job.class_devices * job.row_devices
            print(f"Weight's gradient on {devices} devices: {cost.sent / 1e6:.3g} MB, {cost.sending * 1e3:.3g} ms.")
    return jobs


if __name__ == "__main__":
    main(sys.argv[1:])
