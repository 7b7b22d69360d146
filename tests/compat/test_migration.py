"""Every pair of docs/migration.md runs, and its two sides give one number."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import REQUIRED
from peers import kl_divergence, log_softmax, original, others_share, padded

from lsmooth import compat

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
# Theirs are fenced as py, lsmooth's as python.
BLOCK = re.compile(r"^```(py|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_, *SECTIONS = re.split(r"^## (?=.)", PAGE, flags=re.MULTILINE)
SECTIONS = {section.partition("\n")[0]: BLOCK.findall(section) for section in SECTIONS}


def fairseq(lprobs, target, epsilon):
    return -(others_share(target, lprobs.shape[-1], epsilon) * lprobs).sum(), None


def megatron(logits, target, label_smoothing):
    return -(others_share(target, logits.shape[-1], label_smoothing) * log_softmax(logits)).sum(-1)


def distillkit(logits, ids, values, missing):
    assert missing == "symmetric_uniform"
    pair = values, np.take_along_axis(log_softmax(logits), ids, -1)
    t, s = (np.concatenate([np.exp(x), 1 - np.exp(x).sum(-1, keepdims=True)], -1) for x in pair)
    return (t * np.log(t / s)).sum()


def padded_criterion(smoothing, size, padding):
    return lambda x, target: kl_divergence(padded(target.numpy(), size, smoothing, padding), x.numpy())


def timm(file, name):
    from typing import Optional, Union

    import torch

    namespace = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "Optional": Optional, "Union": Union}
    return original("timm", f"loss/{file}.py", name, namespace)


def label_smoother():
    from dataclasses import dataclass

    import torch

    namespace = {"torch": torch, "nn": torch.nn, "dataclass": dataclass}
    return original("transformers", "trainer_pt_utils.py", "LabelSmoother", namespace)


# Replacements of libraries that cannot be installed here: their formula in NumPy, or their own
# definition without the rest of the package.
STANDINS = {
    "fairseq.criterions.label_smoothed_cross_entropy": lambda: {"label_smoothed_nll_loss": fairseq},
    "distillkit.lossfuncs": lambda: {"sparse_kl_div": distillkit},
    "megatron.core.tensor_parallel": lambda: {"vocab_parallel_cross_entropy": megatron},
    "timm.loss": lambda: {
        "LabelSmoothingCrossEntropy": timm("cross_entropy", "LabelSmoothingCrossEntropy"),
        "BinaryCrossEntropy": timm("binary_cross_entropy", "BinaryCrossEntropy"),
    },
    "transformers.trainer_pt_utils": lambda: {"LabelSmoother": label_smoother()},
    "utils.loss": lambda: {"smooth_BCE": lambda eps: (1 - eps / 2, eps / 2)},
    "the_annotated_transformer": lambda: {
        "LabelSmoothing": lambda size, padding_idx, smoothing: padded_criterion(smoothing, size, padding_idx)
    },
    "onmt.utils.loss": lambda: {
        "LabelSmoothingLoss": lambda eps, size, ignore_index: padded_criterion(eps, size, ignore_index)
    },
}


def provide(code, monkeypatch):
    """Make the imports of the code available, or skip."""
    for name in re.findall(r"^(?:import|from) (\w[\w.]*)", code, re.MULTILINE):
        if name in sys.modules:
            continue
        if name in STANDINS:
            definitions = STANDINS[name]()
            parts = name.split(".")
            for i in range(1, len(parts) + 1):
                monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(parts[i - 1]))
            vars(sys.modules[name]).update(definitions)
        elif importlib.util.find_spec(name) is None:
            assert name not in REQUIRED, f"LSMOOTH_TEST_BACKENDS asks for {name}, which is not installed"
            pytest.skip(f"the other side needs {name}, which is not installed")


@pytest.mark.parametrize("library", SECTIONS)
def test_both_sides_give_the_same_number(library, monkeypatch):
    expected, compared = None, 0
    for kind, code in SECTIONS[library]:
        if kind == "py":
            provide(code, monkeypatch)
        names = {}
        exec(code, names)
        if kind == "py":
            expected = np.asarray(names.pop("theirs"))
        for side in {"ours", "native"} & names.keys():
            np.testing.assert_allclose(np.asarray(names.pop(side)), expected, rtol=2e-6, err_msg=f"{library}: {side}")
            compared += 1
    assert compared >= sum(kind == "py" for kind, _ in SECTIONS[library])


def test_the_page_leaves_out_no_library():
    for name in compat.__all__:
        assert f"lsmooth.compat.{name} import" in PAGE or f"lsmooth.compat import {name}" in PAGE, name
