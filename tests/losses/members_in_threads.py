"""Members of a group as threads of this process, for the formulas of spread classes."""

import threading

import numpy as np

from lsmooth.backends.members import Members


class Exchange:
    """Where the members meet."""

    def __init__(self, count, sizes=None):
        self.count, self.sizes = count, sizes
        self.barrier = threading.Barrier(count, timeout=30)
        self.sent = [None] * count
        self.calls = []  # (kind, shape) of each collective of a member

    def together(self, function):
        """Call ``function(members)`` in each member; return the results in order."""
        results, errors = [None] * self.count, []

        def run(index):
            try:
                results[index] = function(ThreadMembers(self, index))
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=run, args=(i,)) for i in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise next((x for x in errors if not isinstance(x, threading.BrokenBarrierError)), errors[0])
        return results


class ThreadMembers(Members):
    def __init__(self, exchange, index):
        self.exchange, self.index, self.count = exchange, index, exchange.count

    def start(self, size):
        return sum(self.exchange.sizes[: self.index])

    def total(self, size):
        return sum(self.exchange.sizes)

    def _all(self, kind, x):
        if self.index == 0:
            self.exchange.calls.append((kind, tuple(x.shape)))
        self.exchange.sent[self.index] = x
        self.exchange.barrier.wait()
        sent = list(self.exchange.sent)
        self.exchange.barrier.wait()
        return sent

    def sum(self, x, total=None):
        total = sum(_constant(each) for each in self._all("sum", x)) if total is None else total
        return total if isinstance(x, np.ndarray | np.floating) else _sum().apply(x, total)

    def max(self, x):
        sent = self._all("max", x)
        if isinstance(x, np.ndarray):
            return np.max(sent, axis=0)
        import torch

        return torch.stack([_constant(each) for each in sent]).amax(0)

    def shared(self, x):
        return x if isinstance(x, np.ndarray) else _shared().apply(x, self)


def _constant(x):
    return x.detach() if hasattr(x, "detach") else x


def _sum():
    import torch

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, total):
            return total.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient, None

    return Sum


def _shared():
    import torch

    class Shared(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, members):
            ctx.members = members
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return ctx.members.sum(gradient).detach(), None

    return Shared
