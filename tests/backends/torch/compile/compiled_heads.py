"""Linear heads under ``torch.compile``: a head, the compiled calls, and their expected results."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from lsmooth.losses import linear_softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

ROWS, FEATURES, CLASSES = 7, 3, 10

LABELS = np.array([0, 9, 3, 5, 5, 1, 2])


def head(dtype="float64"):
    rng = np.random.default_rng(0)
    shapes = (ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    return [torch.from_numpy(rng.standard_normal(shape)).to(getattr(torch, dtype)).requires_grad_() for shape in shapes]


def run(labels, *head, dynamic=None, **options):
    """Run a compiled call: its loss, and whether the operator is in its graph."""
    options = in_torch(options)
    return run_any(lambda labels, *head: linear_softmax_cross_entropy(labels, *head, **options), dynamic)(
        torch.as_tensor(labels), *head
    )


def in_torch(options):
    return {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}


def run_any(function, dynamic=None, backend="aot_eager"):
    """Compile a function; the result returns as well whether the operator is in its graph."""
    names = []

    def look(module, inputs):
        names.extend(str(node.target) for node in module.graph.nodes)
        return torch._dynamo.lookup_backend(backend)(module, inputs)

    whole = torch.compile(function, backend=look, fullgraph=True, dynamic=dynamic)
    return lambda *args: (whole(*args), any("lsmooth" in name for name in names))


def expect(labels, hidden, weight, bias=None, upstream=1.0, **options):
    """The loss and the gradients of the head, of the reference."""
    hidden, weight = (x.detach().double().numpy() for x in (hidden, weight))
    logits = hidden @ weight.T + (0.0 if bias is None else bias.detach().double().numpy())
    loss, of_logits = reference.softmax_cross_entropy(labels, logits, **options)
    of_logits = of_logits * (upstream[:, None] if np.ndim(upstream) else upstream)
    return loss, [of_logits @ weight, of_logits.T @ hidden, of_logits.sum(0)]
