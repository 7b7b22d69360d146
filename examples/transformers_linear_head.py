"""PyTorch: a Hugging Face Trainer whose model computes a smoothed loss from its hidden states.

The logits of a batch are never made: of a vocabulary of 128 000, they are the largest tensor of a step. The model is a
Llama of random weights, so that nothing is downloaded. The text counts modulo 16.
"""

import tempfile
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed
from transformers.utils import ModelOutput

from lsmooth.integrations.transformers import compute_linear_loss_with_statistics


@dataclass
class LossAndStatistics(ModelOutput):
    """The loss, and sums over the tokens that count: their entropy, how many were predicted, and how many there are."""

    loss: torch.Tensor | None = None
    sums: torch.Tensor | None = None


class LinearHeadLlamaForCausalLM(LlamaForCausalLM):
    """A Llama that returns a loss and no logits where it is given labels; without labels it is as it was."""

    label_smoothing = 0.1

    def forward(self, input_ids=None, attention_mask=None, labels=None, num_items_in_batch=None, **kwargs):
        """The loss is divided by ``num_items_in_batch``, the labels of all the batches that one step accumulates."""
        if labels is None:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        loss, statistics = compute_linear_loss_with_statistics(
            labels,
            hidden,
            self.lm_head.weight,
            num_items_in_batch=num_items_in_batch,
            shift_labels=True,
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        of_rows = (statistics.entropy.detach(), statistics.correct, statistics.predicted >= 0)
        return LossAndStatistics(loss=loss, sums=torch.stack([x.sum() for x in of_rows]))


class StatisticsTrainer(Trainer):
    """A Trainer that logs the entropy and the accuracy of the tokens beside the loss."""

    sums: torch.Tensor | float = 0.0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's loss; its statistics are kept until the next entry of the log."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            self.sums = self.sums + outputs.sums
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        """Add the statistics to the entries of training."""
        if "loss" in logs and torch.is_tensor(self.sums):
            entropy, correct, tokens = self.sums.tolist()
            logs |= {"entropy": entropy / tokens, "token_accuracy": correct / tokens}
            self.sums = 0.0
        super().log(logs, *args, **kwargs)


def tiny_model() -> LinearHeadLlamaForCausalLM:
    """One layer, and 16 tokens to choose from."""
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    return LinearHeadLlamaForCausalLM(config)


def counting_rows() -> list[dict[str, torch.Tensor]]:
    """Texts that count modulo 16, a part of each being a prompt that is not learned."""
    texts = [torch.arange(start, start + 8) % 16 for start in range(32)]
    return [
        {"input_ids": text, "labels": torch.where(torch.arange(8) < i % 5, -100, text)} for i, text in enumerate(texts)
    ]


def train(model: torch.nn.Module, *, batch_size: int, accumulation: int, **options) -> Trainer:
    """Train on the counting rows, in the order given."""
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            **options,
        )
        trainer = StatisticsTrainer(model=model, args=args, train_dataset=counting_rows(), eval_dataset=counting_rows())
        trainer.train()
    return trainer


def main(epochs: int = 8) -> list[float]:
    """Train, and print the loss as it falls and the perplexity."""
    set_seed(0)
    trainer = train(tiny_model(), batch_size=1, accumulation=8, num_train_epochs=epochs, learning_rate=1e-2)
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [entry["loss"] for entry in steps]
    # No label smoothing in evaluation: the exponential of this loss is the perplexity.
    perplexity = torch.tensor(trainer.evaluate()["eval_loss"]).exp().item()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, perplexity {perplexity:.2f}")
    for name in ("entropy", "token_accuracy"):
        print(f"{name} {steps[0][name]:.3f} -> {steps[-1][name]:.3f}")
    return losses


if __name__ == "__main__":
    main()
