"""Run by test_transformers_integration.py, once a process: a few steps of the Trainers in the examples.

The first argument is the file for the parameters after training; others, such as ``1x8``, are a batch size and how many
batches one step accumulates. The environment says which process it is, as under ``torchrun``.
"""

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

EXAMPLES = Path(__file__).parents[2] / "examples"
linear = runpy.run_path(str(EXAMPLES / "transformers_linear_head.py"))
distillation = runpy.run_path(str(EXAMPLES / "transformers_distillation.py"))


def trained(example: str, batch_size: int, accumulation: int) -> list[float]:
    """The parameters after three steps."""
    set_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=3,
            optim="sgd",
            learning_rate=0.5,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        rows = linear["counting_rows"]()
        if example == "linear":
            model = linear["tiny_model"]()
            trainer = linear["Trainer"](model=model, args=args, train_dataset=rows)
        else:
            model, teacher = distillation["llama"](32), distillation["llama"](32)
            loss = distillation["DistillationLoss"](alpha=0.5, temperature=2.0, ignore_index=-100, reduction="sum")
            trainer = distillation["DistillationTrainer"](
                model=model, args=args, train_dataset=rows, teacher=teacher, loss=loss
            )
        trainer.train()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).tolist()


settings = [tuple(map(int, setting.split("x"))) for setting in sys.argv[2:]]
found = {example: [trained(example, *setting) for setting in settings] for example in ("linear", "distillation")}
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
if os.environ.get("RANK", "0") == "0":
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
