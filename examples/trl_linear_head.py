"""PyTorch: TRL's SFTTrainer with a smoothed loss that is computed from the hidden states.

The model and its tokenizer are made here, so that nothing is downloaded. The text counts.
"""

import tempfile
from dataclasses import dataclass

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, set_seed
from transformers.utils import ModelOutput
from trl import SFTConfig, SFTTrainer

from lsmooth.integrations.transformers import compute_linear_loss_with_statistics

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass
class LossAndStatistics(ModelOutput):
    """The loss, and sums over the tokens that count: their entropy, how many were predicted, and how many there are."""

    loss: torch.Tensor | None = None
    sums: torch.Tensor | None = None


class LinearHeadLlamaForCausalLM(LlamaForCausalLM):
    """A Llama that returns a loss and no logits where it is given labels."""

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
            label_smoothing=0.1 if self.training else 0.0,
        )
        of_rows = (statistics.entropy.detach(), statistics.correct, statistics.predicted >= 0)
        return LossAndStatistics(loss=loss, sums=torch.stack([x.sum() for x in of_rows]))


class LinearHeadSFTTrainer(SFTTrainer):
    """An SFTTrainer that leaves the loss to the model; TRL's own has no smoothing without the logits."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The Trainer's, which takes the loss that the model returns; SFTTrainer logs the means of the statistics."""
        inputs["use_cache"] = False
        loss, outputs = Trainer.compute_loss(self, model, inputs, True, num_items_in_batch)
        entropy, correct, tokens = outputs.sums.tolist()
        metrics = self._metrics["train" if model.training else "eval"]
        metrics["entropy"].append(entropy / max(tokens, 1.0))
        metrics["mean_token_accuracy"].append(correct / max(tokens, 1.0))
        return (loss, outputs) if return_outputs else loss


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each number."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *NUMBERS])}, "<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def main(epochs: int = 8) -> list[float]:
    """Train on prompts and completions, and print the loss as it falls."""
    set_seed(0)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    texts = [[NUMBERS[(start + i) % 10] for i in range(8)] for start in range(32)]
    rows = [
        {"prompt": " ".join(text[: 2 + i % 3]), "completion": " ".join(text[2 + i % 3 :])}
        for i, text in enumerate(texts)
    ]
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=8,
            num_train_epochs=epochs,
            learning_rate=1e-2,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        )
        trainer = LinearHeadSFTTrainer(
            model=LinearHeadLlamaForCausalLM(config),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    for name in ("loss", "entropy", "mean_token_accuracy"):
        print(f"{name} {steps[0][name]:.3f} -> {steps[-1][name]:.3f}")
    return [entry["loss"] for entry in steps]


if __name__ == "__main__":
    main()
