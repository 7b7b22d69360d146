"""PyTorch: a Hugging Face Trainer whose model computes a smoothed loss from its hidden states.

The logits of a batch are never made: of a vocabulary of 128 000, they are the largest tensor of a step. The model is a
Llama of random weights, so that nothing is downloaded. The text counts modulo 16.
"""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed
from transformers.modeling_outputs import CausalLMOutput

from lsmooth.integrations.transformers import compute_linear_loss


class LinearHeadLlamaForCausalLM(LlamaForCausalLM):
    """A Llama that returns a loss and no logits where it is given labels; without labels it is as it was."""

    label_smoothing = 0.1

    def forward(self, input_ids=None, attention_mask=None, labels=None, num_items_in_batch=None, **kwargs):
        """The loss is divided by ``num_items_in_batch``, the labels of all the batches that one step accumulates."""
        if labels is None:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        smoothing = self.label_smoothing if self.training else 0.0
        loss = compute_linear_loss(
            labels,
            hidden,
            self.lm_head.weight,
            num_items_in_batch=num_items_in_batch,
            shift_labels=True,
            label_smoothing=smoothing,
        )
        return CausalLMOutput(loss=loss)


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
        trainer = Trainer(model=model, args=args, train_dataset=counting_rows(), eval_dataset=counting_rows())
        trainer.train()
    return trainer


def main(epochs: int = 8) -> list[float]:
    """Train, and print the loss as it falls and the perplexity."""
    set_seed(0)
    trainer = train(tiny_model(), batch_size=1, accumulation=8, num_train_epochs=epochs, learning_rate=1e-2)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # No label smoothing in evaluation: the exponential of this loss is the perplexity.
    perplexity = torch.tensor(trainer.evaluate()["eval_loss"]).exp().item()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, perplexity {perplexity:.2f}")
    return losses


if __name__ == "__main__":
    main()
