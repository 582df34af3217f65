"""Planned against measured memory: `python benchmarks/memory.py`, some ten minutes on two cores; prints README's table.

The plan makes steps without numbers. Measured are the allocations of three real steps by Lightning, summed up by PyTorch's
profiler. Networks of 20 to 60 million random parameters, four rows of 256 tokens.
"""

import argparse
import gc
import logging
import tempfile
import warnings
from itertools import product
from pathlib import Path

import lightning as L
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    LlamaConfig,
    T5Config,
)

from lit_fm import Bottleneck, CausalLM, Full, LoRA, MaskedLM, SoftPrompt, SpanCorruption
from lit_fm.backbone import load_tokenizer
from lit_fm.plan.ledger import bytes_of
from lit_fm.plan.memory import plan

IDS = {"vocab_size": 8000, "pad_token_id": 0}
BACKBONES = {
    "CausalLM": (CausalLM, AutoModelForCausalLM, "tiny-clm", LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8,
        bos_token_id=1, eos_token_id=2, **IDS)),
    "MaskedLM": (MaskedLM, AutoModelForMaskedLM, "tiny-mlm", BertConfig(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=8, **IDS)),
    "SpanCorruption": (SpanCorruption, AutoModelForSeq2SeqLM, "tiny-t5", T5Config(
        d_model=512, d_kv=64, d_ff=1024, num_layers=6, num_heads=8, feed_forward_proj="gated-gelu", eos_token_id=1,
        decoder_start_token_id=0, **IDS)),
}  # fmt: skip
ADAPTATIONS = {
    "Full": Full,
    "LoRA": lambda: LoRA(rank=16),
    "Bottleneck": lambda: Bottleneck(width=64),
    "SoftPrompt": lambda: SoftPrompt(tokens=20),
}
STEPS = 3


def backbone(folder, objective):
    """A folder with a random network; made once."""
    _, auto_class, tokenizer, config = BACKBONES[objective]
    path = Path(folder, objective)
    if not path.exists():
        auto_class.from_config(config).save_pretrained(path)
        load_tokenizer(tokenizer).save_pretrained(path)
    return str(path)


def batch_of(objective, rows=4, length=256):
    """Rows of random tokens."""
    rng = np.random.default_rng(0)
    width = length - objective.block_frame
    items = [objective.block(rng.integers(100, 1500, width).astype(np.int32), False) for _ in range(rows)]
    return objective.collate(items, [(0, 0, number) for number in range(rows)])


class Same(L.LightningDataModule):
    """One batch, again and again."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def train_dataloader(self):
        return torch.utils.data.DataLoader([self.batch] * STEPS, batch_size=None)


def measured(objective, strategy="auto"):
    """Bytes at the peak of three steps, weights included."""
    objective.configure_model()
    weights = bytes_of([*objective.network.parameters(), *objective.network.buffers()])
    trainer = L.Trainer(
        accelerator="cpu", max_steps=STEPS, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, strategy=strategy, devices=1,
    )  # fmt: skip
    data = Same(batch_of(objective))
    with profiler() as profile:
        trainer.fit(objective, datamodule=data)
    return weights + peak_of(profile)


def profiler():
    """PyTorch's, of memory. What others left is freed before: meanwhile, it would count as less."""
    gc.collect()
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)


def peak_of(profile):
    """Bytes at the peak of what was allocated under a profiler."""
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def compare(folder, objective, adaptation, checkpointing):
    """Planned and measured bytes."""
    made = [
        BACKBONES[objective][0](
            backbone(folder, objective), ADAPTATIONS[adaptation](), activation_checkpointing=checkpointing
        )
        for _ in range(2)
    ]
    return plan(made[0], lambda: [batch_of(made[0])]).bytes, measured(made[1])


def main():
    """Print the table."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--objectives", nargs="*", default=list(BACKBONES))
    asked.add_argument("--adaptations", nargs="*", default=list(ADAPTATIONS))
    chosen = asked.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    off = []
    print(
        "| objective | adaptation | activations | planned, MiB | measured, MiB | difference |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for objective, adaptation, checkpointing in product(chosen.objectives, chosen.adaptations, (False, True)):
            planned, found = compare(folder, objective, adaptation, checkpointing)
            off.append(planned / found - 1)
            kept = "computed again" if checkpointing else "kept"
            print(
                f"| {objective} | {adaptation} | {kept} | {planned / 2**20:,.1f} | {found / 2**20:,.1f} | {off[-1]:+.2%} |",
                flush=True,
            )
    print(f"\nLargest {max(map(abs, off)):.2%}, median {np.median(np.abs(off)):.2%}, of {len(off)}.")


if __name__ == "__main__":
    main()
