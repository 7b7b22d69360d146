"""Smoothed losses of spread classes and weighted means of spread rows: lsmooth and its peers against one device.

    python -m benchmarks.sharded_peers [--peers FOLDER ...] [--write benchmarks/results/sharded-peers.json]

Each member is a process in a gloo group on this machine. PyTorch and lsmooth are always measured. The
other peers are measured where a folder holds them; none of them needs a GPU here, since Triton's interpreter runs their
kernels:

    pip install --no-deps --target FOLDER megatron-core liger-kernel triton
    pip download --no-deps transformer-engine flash-attn     # unpack their Python files, each into its own FOLDER

Several folders may hold several versions of a peer. ``docs/sharded-losses.md`` shows the results.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS, CLASSES, EPS = 6, 12, 0.1
WORLDS = (2, 4)
RESULTS = Path(__file__).parent / "results" / "sharded-peers.json"


def batch() -> dict[str, np.ndarray]:
    """Logits, labels and class weights."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 3, 11, 5, 7, 1])
    return {
        "logits": (3 * rng.normal(size=(ROWS, CLASSES))).astype(np.float32),
        "labels": labels,
        "class_weight": np.linspace(0.5, 6.0, CLASSES).astype(np.float32),
    }


def one_device(form: str, data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The rows' losses by the formula in float64, and the gradient of their sum."""
    z, rows = data["logits"].astype(np.float64), np.arange(ROWS)
    log_p = z - z.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    eps = {"hard": 0.0, "eps / K": EPS, "eps / (K - 1)": EPS * CLASSES / (CLASSES - 1)}[form]
    target = np.full_like(z, eps / CLASSES)
    target[rows, data["labels"]] += 1.0 - eps
    return -(target * log_p).sum(-1), np.exp(log_p) - target


def weighted_mean(data: dict[str, np.ndarray]) -> float:
    """The mean of the rows weighted by the class of their labels."""
    weight = data["class_weight"][data["labels"]].astype(np.float64)
    return float((weight * one_device("hard", data)[0]).sum() / weight.sum())


# Each takes this process' slice of the logits, the labels and the group; it returns the rows' losses, or their mean.
def _lsmooth(z: Any, y: Any, group: Any) -> Any:
    from lsmooth.losses import softmax_cross_entropy

    return softmax_cross_entropy(y, z, label_smoothing=EPS, reduction="none", class_shards=group)


def _lsmooth_megatron(z: Any, y: Any, group: Any) -> Any:
    from lsmooth.compat.megatron import vocab_parallel_cross_entropy

    return vocab_parallel_cross_entropy(z, y, EPS, tp_group=group)


def _megatron(z: Any, y: Any, group: Any) -> Any:
    from megatron.core import parallel_state  # type: ignore[import-not-found]
    from megatron.core.tensor_parallel import cross_entropy  # type: ignore[import-not-found]

    if not parallel_state.model_parallel_is_initialized():
        parallel_state.initialize_model_parallel(tensor_model_parallel_size=group.size())
    return cross_entropy.vocab_parallel_cross_entropy(z.clone()[:, None], y[:, None], EPS)


def _transformer_engine(z: Any, y: Any, group: Any) -> Any:
    _without_init("transformer_engine", "common", "common.triton", "pytorch", "pytorch.triton")
    jit: Any = types.ModuleType("transformer_engine.pytorch.jit")
    jit.no_torch_dynamo = lambda *_, **__: lambda function: function
    sys.modules[jit.__name__] = jit
    from transformer_engine.pytorch import cross_entropy  # type: ignore[import-not-found]

    return cross_entropy.CrossEntropyFunction.apply(z[None], y[None], EPS, False, group)


def _flash_attention(z: Any, y: Any, group: Any) -> Any:
    _without_init("flash_attn", "ops", "ops.triton")
    import torch
    from flash_attn.ops.triton.cross_entropy import cross_entropy_loss  # type: ignore[import-not-found]

    torch.cuda.device = lambda index: contextlib.nullcontext()  # type: ignore[assignment,misc]
    gather = torch.distributed.all_gather_into_tensor  # gloo needs one axis
    torch.distributed.all_gather_into_tensor = lambda out, x, group=None: gather(out.view(-1), x.view(-1), group)
    return cross_entropy_loss(z.clone(), y, label_smoothing=EPS, process_group=group)[0]


def _liger(form: str, mode: str) -> Callable[[Any, Any, Any], Any]:
    def losses(z: Any, y: Any, group: Any) -> Any:
        from liger_kernel.ops import vocab_parallel_cross_entropy as ops  # type: ignore[import-not-found]

        return ops.LigerVocabParallelCEFunction.apply(z[:, None], y[:, None], group, -100, EPS, form, mode)

    return losses


def _loss_parallel(eps: float) -> Callable[[Any, Any, Any], Any]:
    def losses(z: Any, y: Any, group: Any) -> Any:
        import torch
        from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
        from torch.distributed.tensor.parallel import loss_parallel

        mesh = init_device_mesh("cpu", (group.size(),))
        with loss_parallel():
            spread, ids = DTensor.from_local(z, mesh, [Shard(1)]), distribute_tensor(y, mesh, [Replicate()])
            rows = torch.nn.functional.cross_entropy(spread, ids, reduction="none", label_smoothing=eps)
            rows.sum().backward()
        return rows.to_local().detach()

    return losses


def _dtensor_weighted_mean(data: dict[str, Any], rank: int, group: Any) -> Any:
    import torch
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (group.size(),))
    z = distribute_tensor(data["logits"], mesh, [Shard(0)])
    y, weight = (distribute_tensor(data[name], mesh, [Replicate()]) for name in ("labels", "class_weight"))
    mean: Any = torch.nn.functional.cross_entropy(z, y, weight)
    return mean.full_tensor()


def _lsmooth_weighted_mean(data: dict[str, Any], rank: int, group: Any) -> Any:
    from lsmooth.losses import softmax_cross_entropy

    rows = slice(rank * ROWS // group.size(), (rank + 1) * ROWS // group.size())
    labels, logits = data["labels"][rows], data["logits"][rows]
    return softmax_cross_entropy(labels, logits, class_weight=data["class_weight"], row_shards=group)


# The name, the form of smoothing, the package that a folder must hold, and the function.
OVER_CLASSES: list[tuple[str, str, str | None, Callable[[Any, Any, Any], Any]]] = [
    ("lsmooth, class_shards", "eps / K", None, _lsmooth),
    ("lsmooth.compat.megatron, tp_group", "eps / (K - 1)", None, _lsmooth_megatron),
    ("Megatron-Core", "eps / (K - 1)", "megatron_core", _megatron),
    ("TransformerEngine", "eps / K", "transformer_engine", _transformer_engine),
    ("flash-attention", "eps / K", "flash_attn", _flash_attention),
    ("Liger-Kernel, global", "eps / K", "liger_kernel", _liger("pytorch", "global")),
    ("Liger-Kernel, partition", "eps / (K - 1)", "liger_kernel", _liger("megatron", "partition")),
    ("torch loss_parallel", "eps / K", None, _loss_parallel(EPS)),
    ("torch loss_parallel, no smoothing", "hard", None, _loss_parallel(0.0)),
]
OVER_ROWS: dict[str, Callable[[dict[str, Any], int, Any], Any]] = {
    "lsmooth, row_shards": _lsmooth_weighted_mean,
    "torch cross_entropy of a DTensor": _dtensor_weighted_mean,
}


def _without_init(package: str, *inside: str) -> None:
    """Make the package and those inside importable without their ``__init__``, which loads CUDA libraries."""
    for name in (package, *(f"{package}.{name}" for name in inside)):
        module = types.ModuleType(name)
        module.__path__ = [str(Path(folder, *name.split("."))) for folder in sys.path]
        sys.modules[name] = module


def member(rank: int, world: int, folder: str, number: int, path: str) -> None:
    """One process: measure peer ``number`` of `OVER_CLASSES` and then of `OVER_ROWS`, and write the results."""
    sys.path += filter(None, path.split(os.pathsep))
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    group: Any = dist.group.WORLD
    data = {name: torch.from_numpy(x) for name, x in batch().items()}
    try:
        if number < len(OVER_CLASSES):
            seen = _over_classes(OVER_CLASSES[number], data, rank, group)
        else:
            seen = {"losses": [float(list(OVER_ROWS.values())[number - len(OVER_CLASSES)](data, rank, group))]}
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        seen = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    Path(folder, f"{rank}.json").write_text(json.dumps(seen), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _over_classes(peer: Any, data: dict[str, Any], rank: int, group: Any) -> dict[str, Any]:
    _, form, _, function = peer
    mine = slice(rank * CLASSES // group.size(), (rank + 1) * CLASSES // group.size())
    z = data["logits"][:, mine].clone().requires_grad_()
    losses = function(z, data["labels"], group)
    if losses.requires_grad:
        losses.sum().backward()
    gap = np.abs(z.grad.numpy() - one_device(form, batch())[1][:, mine]).max()  # type: ignore[union-attr]
    return {"losses": losses.detach().reshape(-1).tolist(), "gradient": float(gap)}


def measure(number: int, world: int, path: str = "") -> list[dict[str, Any]]:
    """The results of each of ``world`` processes for a peer."""
    import torch.multiprocessing as processes

    os.environ.update(TRITON_INTERPRET="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(member, (world, folder, number, path), world)  # type: ignore[attr-defined]
        return [json.loads(Path(folder, f"{rank}.json").read_text("utf-8")) for rank in range(world)]


def measure_all(folders: list[str], only: str = "") -> dict[str, Any]:
    """The results of every peer that can be found, and whose name contains ``only``."""
    import torch

    data, results = batch(), {"classes": [], "rows": []}
    for number, (name, form, package, _) in enumerate(OVER_CLASSES):
        if only not in name:
            continue
        for folder in folders if package else [""]:
            version = torch.__version__.partition("+")[0] if name.startswith("torch") else ""
            if package and not (version := _version(package, folder)):
                continue
            triton = next((other for other in folders if Path(other, "triton").is_dir()), "")
            for world in WORLDS:
                seen = measure(number, world, os.pathsep.join([folder, triton]))
                expected = float(one_device(form, data)[0].mean())
                result = {"peer": name, "version": version, "form": form, "world": world, "one device": expected}
                if "error" in seen[0]:
                    result["error"] = seen[0]["error"]
                else:
                    result["means"] = [float(np.mean(one["losses"])) for one in seen]
                    result["gradient"] = max(one["gradient"] for one in seen)
                results["classes"].append(result)
                print(result)
    for number, name in enumerate(OVER_ROWS, len(OVER_CLASSES)):
        if only not in name:
            continue
        version = torch.__version__.partition("+")[0] if name.startswith("torch") else ""
        seen = measure(number, 2)
        result = {"peer": name, "version": version, "world": 2, "one device": weighted_mean(data)}
        result |= {"error": seen[0]["error"]} if "error" in seen[0] else {"means": [one["losses"][0] for one in seen]}
        results["rows"].append(result)
        print(result)
    return results


def merged(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Earlier results, and in place of those of the same peers the later ones."""
    order = [name for name, *_ in OVER_CLASSES] + list(OVER_ROWS)
    again = {result["peer"] for kind in after.values() for result in kind}
    kept = {kind: [result for result in before[kind] if result["peer"] not in again] for kind in before}
    return {kind: sorted(kept[kind] + after[kind], key=lambda result: order.index(result["peer"])) for kind in before}


def _version(package: str, folder: str) -> str:
    """The version of a package in a folder, "" if it is not there."""
    found = sorted(Path(folder).glob(f"{package}-*.dist-info"))
    if found:
        return found[0].name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return "unknown" if importlib.util.find_spec(package) or Path(folder, package).is_dir() else ""


def tables(results: dict[str, Any]) -> str:
    """The tables of the page."""
    lines = [
        "| 2 processes, classes | form | one device | each process | largest error of a gradient |",
        "|---|---|---|---|---|",
    ]
    lines += [_line(result, result["form"]) for result in results["classes"] if result["world"] == 2]
    lines += ["", "| 4 processes, classes | form | one device | each process | largest error of a gradient |"]
    lines += ["|---|---|---|---|---|"]
    lines += [_line(result, result["form"]) for result in results["classes"] if result["world"] == 4]
    lines += ["", "| 2 processes, rows | one device | each process |", "|---|---|---|"]
    lines += [_line(result, None) for result in results["rows"]]
    return "\n".join(lines) + "\n"


def _line(result: dict[str, Any], form: str | None) -> str:
    package, comma, rest = result["peer"].partition(", ")
    name = f"{package} {result['version']}".strip() + comma + rest
    cells = [name, *([] if form is None else [form]), f"{result['one device']:.5f}"]
    if "error" in result:
        cells.append(result["error"].partition(":")[0])
        cells += [] if form is None else [""]
    else:
        means = [f"{mean:.5f}" for mean in result["means"]]
        cells.append(means[0] if len(set(means)) == 1 else ", ".join(means))
        if form is not None:
            gap = result["gradient"]
            cells.append("below 1e-6" if gap < 1e-6 else f"{gap:.1e}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print the tables, and optionally write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="append", default=[], metavar="FOLDER", help="holds packages to measure")
    parser.add_argument("--only", default="", help="a part of the names of the peers to measure again")
    parser.add_argument("--write", type=Path, help="the JSON file of the results")
    arguments = parser.parse_args()
    results = measure_all(arguments.peers, arguments.only)
    if arguments.write and arguments.only:
        results = merged(json.loads(arguments.write.read_text("utf-8")), results)
    print(tables(results))
    if arguments.write:
        arguments.write.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
