"""The Triton kernels compile for GPUs."""

import os
import subprocess
import sys

from triton_cases import IGNORE_WARNINGS

pytestmark = IGNORE_WARNINGS

COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lsmooth.backends.torch.gpu.cross_entropy import cross_entropy
from lsmooth.backends.torch.gpu.divergence import kl
from lsmooth.backends.torch.gpu.rows import multiply_rows

STRIDES = ("stride", "teacher_stride", "upstream_stride", "scale_stride", "target_stride", "num_rows")
NUMBERS = dict(dict.fromkeys(STRIDES, "i32"), num_classes="i32")
POINTERS = dict(logits="*bf16", teacher="*fp16", labels="*i64", losses="*fp32", upstream="*fp32")
ALWAYS = dict(NUMBERS, **POINTERS, scale="fp32", inverse_temperature="fp32", least="fp32")
GRADIENT = dict(gradient="*bf16", eps="fp32")
OPTIONS = dict(prior="*fp32", class_weight="*fp32", counted="*i1", row_scale="*fp32", z_loss="fp32", softcap="fp32")

ROWS = dict(row_eps="*fp32", row_temperature="*fp32")
EVERYTHING = dict(ALWAYS, **GRADIENT, **OPTIONS, **ROWS)
SOFT = dict(EVERYTHING, target="*bf16", known="*fp32", predicted="*i64")
del SOFT["labels"]
COUNTED = dict(EVERYTHING, known="*fp32", predicted="*i64")

def check(kernel, types, constants):
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    values = {(i,): constants.get(name) for i, name in enumerate(names) if signature[name] == "constexpr"}
    for capability in (75, 90):
        compile(ASTSource(kernel, signature, values), target=GPUTarget("cuda", capability, 32))

check(multiply_rows, dict(ALWAYS, **GRADIENT), dict(block=4096))
WITH_GRADIENT = dict(ALWAYS, **GRADIENT)
LOSS_ALONE = dict(ALWAYS, **OPTIONS)
for types in (ALWAYS, WITH_GRADIENT, dict(WITH_GRADIENT, **OPTIONS), LOSS_ALONE, EVERYTHING, COUNTED, SOFT):
    for kernel, constants in ((cross_entropy, {}), (kl, dict(reverse=False)), (kl, dict(reverse=True))):
        check(kernel, types, dict(constants, block=4096))
        # Whole numbers that are 1 are constants to Triton.
        others = {name: kind for name, kind in types.items() if name not in NUMBERS}
        check(kernel, others, dict(dict.fromkeys(NUMBERS, 1), **constants, block=1))
"""


def test_the_kernels_compile_without_a_gpu():
    """The interpreter is lenient where the compiler is not: about types that change in a loop, for one."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-"], input=COMPILE, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
