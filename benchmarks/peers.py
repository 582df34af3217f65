"""The same work by other trainers, in their own environments: `python peers.py hf|trl FOLDER` (which `speed.py` makes)."""

import sys
from pathlib import Path

import torch
from stamps import stamp, tell
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

NETWORKS = {"llama": AutoModelForCausalLM, "bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
RATE, LORA = 3e-4, {"r": 16, "lora_alpha": 32}  # as in work.py, which imports lit_fm


class Losses(TrainerCallback):
    """Of each step, as it is logged."""

    def __init__(self):
        self.found = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.found += [logs["loss"]] if "loss" in logs else []


class InOrder(Trainer):
    """The batches as they were dealt."""

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)


TOKENS = []
"""In each batch that was made, padding left out; a decoder's as well."""


def collate(rows):
    """Padded to the longest; no mask where nothing is padded."""
    apart = any(len(row["labels"]) != len(row["input_ids"]) for row in rows)
    TOKENS.append(sum(len(row["input_ids"]) + len(row["labels"]) * apart for row in rows))
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([row["input_ids"] for row in rows], batch_first=True)
    labels = pad([row["labels"] for row in rows], batch_first=True, padding_value=-100)
    whole = torch.ones_like
    mask = pad([whole(row["input_ids"]) for row in rows], batch_first=True)
    return {"input_ids": ids, "labels": labels, **({} if mask.all() else {"attention_mask": mask})}


def settings(size):
    """What every Trainer is told."""
    return {
        "output_dir": "trained", "per_device_train_batch_size": size, "num_train_epochs": 1, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "weight_decay": 0.0, "max_grad_norm": 0.0,
        "logging_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True, "bf16": False,
    }  # fmt: skip


def by_trainer(network, batches, watch):
    """transformers' Trainer."""
    rows = [{"input_ids": ids, "labels": labels} for batch in batches for ids, labels in batch["rows"]]
    more = {"remove_unused_columns": False}
    asked = TrainingArguments(**settings(len(batches[0]["rows"])), **more)
    return InOrder(network, asked, data_collator=collate, train_dataset=rows, callbacks=[watch])


def by_trl(network, batches, watch):
    """TRL's SFTTrainer, padded: it packs exactly with flash attention alone."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [(ids.tolist(), (labels != -100).int().tolist()) for batch in batches for ids, labels in batch["rows"]]
    data = Dataset.from_dict({"input_ids": [ids for ids, _ in rows], "completion_mask": [mask for _, mask in rows]})
    asked = SFTConfig(**settings(len(batches[0]["rows"])), max_length=None, gradient_checkpointing=False)
    return SFTTrainer(network, asked, train_dataset=data, callbacks=[watch])


def main():
    """Train."""
    stamp()
    way, folder = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    kind = AutoConfig.from_pretrained(folder / "model").model_type
    network = NETWORKS[kind].from_pretrained(folder / "model", dtype=torch.float32)
    network.config.use_cache = False
    if folder.name == "lora":
        from peft import LoraConfig, get_peft_model

        network = get_peft_model(network, LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"))
    batches, watch = torch.load(folder / "batches.pt"), Losses()
    {"hf": by_trainer, "trl": by_trl}[way](network, batches, watch).train()
    tell(TOKENS or [batch["tokens"] for batch in batches], watch.found)  # TRL makes its own batches of the same rows


if __name__ == "__main__":
    main()
