"""Cases of the kernels for GPUs under Triton's interpreter: ``TRITON_INTERPRET=1``, set before torch starts.

Without it Triton needs a GPU, so these tests have a separate environment: tox -e triton. Importing this module
skips a test module where they cannot run.
"""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed: it comes with torch's builds for CUDA")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is off; tox -e triton sets TRITON_INTERPRET=1", allow_module_level=True)

from conftest import assert_close  # noqa: E402

from lsmooth.losses import softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

# Triton's interpreter runs on NumPy, which warns where a GPU would not.
IGNORE_WARNINGS = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

ROWS = 5

OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "all mass": {"label_smoothing": 1.0},
    "none": {"label_smoothing": 0.2, "reduction": "none"},
    "prior": {"label_smoothing": 0.2, "smoothing_prior": True},
    "class_weight": {"class_weight": True},
    "smoothed class_weight": {"label_smoothing": 0.2, "class_weight": True, "reduction": "none"},
    "sample_weight": {"label_smoothing": 0.2, "sample_weight": True},
    "ignore_index": {"label_smoothing": 0.2, "ignore_index": 0},
    "temperature": {"label_smoothing": 0.2, "temperature": 2.5},
    "z_loss": {"label_smoothing": 0.2, "z_loss": 1e-2},
    "softcap": {"label_smoothing": 0.2, "logit_softcap": 3.0},
    "label_smoothing of rows": {"label_smoothing": np.linspace(0.0, 1.0, ROWS)},
    "temperature of rows": {"label_smoothing": 0.2, "temperature": np.linspace(0.5, 2.5, ROWS)},
    "everything": {
        "label_smoothing": 0.2,
        "smoothing_prior": True,
        "class_weight": True,
        "sample_weight": True,
        "ignore_index": 0,
        "temperature": 0.7,
        "z_loss": 1e-2,
        "logit_softcap": 3.0,
        "reduction": "none",
    },
}


def arrays(num_classes, dtype="float32", **options):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(4.0 * rng.standard_normal((ROWS, num_classes))).to(getattr(torch, dtype))
    labels = torch.from_numpy(rng.integers(0, num_classes, ROWS))
    labels[1] = 0
    given = {
        "smoothing_prior": rng.random(num_classes),
        "class_weight": np.linspace(0.5, 2.0, num_classes),
        "sample_weight": np.linspace(0.0, 2.0, ROWS),
    }
    return labels, logits, {name: given[name] if value is True else value for name, value in options.items()}


def took_the_kernel(loss):
    """Whether a kernel brought the gradient, which in float16 is scaled and added up after it."""
    nodes = [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if "Attach" in type(node).__name__:
            return True
        nodes += [following for following, _ in node.next_functions if following is not None]
    return False


def assert_it_equals_the_reference(backend, labels, logits, dtype="float32", **options):
    z = logits.clone().requires_grad_()
    loss = softmax_cross_entropy(labels, z, **options)
    assert took_the_kernel(loss)
    assert loss.dtype == torch.float32
    expected, gradient = reference.softmax_cross_entropy(labels.numpy(), logits.double().numpy(), **options)
    assert_close(backend, loss, expected, "float32")
    loss.sum().backward()
    largest = np.nanmax(np.abs(gradient))
    assert_close(backend, z.grad / largest, gradient / largest, dtype)
