"""PyTorch: a Hugging Face Trainer in which a small language model learns from a larger one.

Both are Llamas of random weights, so that nothing is downloaded. The text counts modulo 16, which the
teacher learns first.
"""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from lsmooth.distillation import DistillationLoss

IGNORED = -100


class DistillationTrainer(Trainer):
    """A Trainer whose model learns from its labels and from a teacher.

    The loss is summed over the tokens that count, and divided by how many of them all the batches hold
    that one step accumulates, on all processes, so that the gradient is that of one large batch.
    """

    def __init__(self, *args, teacher: torch.nn.Module, loss: DistillationLoss, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        self.loss = loss
        # Tells the Trainer to count the tokens, and not to divide the loss once more.
        self.model_accepts_loss_kwargs = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Both parts of the loss, of the logits of both models."""
        labels = inputs["labels"][:, 1:]
        inputs = {name: x for name, x in inputs.items() if name != "labels"}
        outputs = model(**inputs)
        with torch.no_grad():
            teacher_logits = self.teacher(**inputs).logits[:, :-1]
        loss = self.loss(labels, teacher_logits, outputs.logits[:, :-1])
        if num_items_in_batch is None:
            loss = loss / (labels != IGNORED).sum()
        else:  # of all processes, whose gradients are averaged
            loss = loss * self.accelerator.num_processes / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def llama(width: int) -> LlamaForCausalLM:
    """A model of one layer, with 16 tokens to choose from."""
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    return LlamaForCausalLM(config)


def main(epochs: int = 8) -> list[float]:
    """Train the teacher, then the student, and print the student's loss as it falls."""
    set_seed(0)
    texts = [torch.arange(start, start + 8) % 16 for start in range(32)]
    rows = [{"input_ids": text, "labels": text} for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=epochs,
            learning_rate=1e-2,
            logging_steps=4,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        teacher = llama(64)
        Trainer(model=teacher, args=args, train_dataset=rows).train()

        loss = DistillationLoss(alpha=0.9, temperature=2.0, ignore_index=IGNORED, reduction="sum")
        trainer = DistillationTrainer(model=llama(32), args=args, train_dataset=rows, teacher=teacher, loss=loss)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
