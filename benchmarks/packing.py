"""Useful tokens per second of packed, padding-free, grouped and padded batches, as ratios measured in one run.

`python benchmarks/packing.py [--steps 6] [--examples 32] [--vocabulary 32000]`: a random Llama (8 layers, width 384),
forward and backward, on made-up examples with the lengths of GSM8K's (a log-normal fit to its 7,473 training examples
under a 32,000-token BPE). What logits cost is the same for each learnt token, however it is batched: the smaller the
vocabulary beside the network, the nearer the ratios are to those of useful positions.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_fm import CausalLM
from lit_fm.backbone import load_tokenizer
from lit_fm.data.batches import Batches
from lit_fm.data.order import BatchPlan
from lit_fm.objectives.packed import exact_way

ROW = 512


def examples(number: int, vocabulary: int) -> list[dict[str, np.ndarray]]:
    """Encoded prompts with answers, of random tokens."""
    rng = np.random.default_rng(0)
    prompts = np.exp(rng.normal(3.91, 0.36, number)).clip(10, 211).astype(int)
    answers = np.exp(rng.normal(4.42, 0.43, number)).clip(21, 328).astype(int)
    made = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = rng.integers(3, vocabulary, prompt + answer).astype(np.int32)
        made.append({"input_ids": ids, "labels": np.where(np.arange(len(ids)) < prompt, -100, ids).astype(np.int32)})
    return made


def with_all_logits(batch: dict) -> dict:
    """The same batch with logits at every position, as networks give them by themselves."""
    targets = torch.full((batch["input_ids"].numel(),), -100)
    targets[batch["rows"]] = batch["targets"]
    return {**batch, "rows": torch.arange(len(targets)), "targets": targets}


class Random(BatchPlan):
    """Batches in random order, padded to their longest, as without grouping."""

    def _batches(self) -> list[list[list[int]]]:
        order = np.random.default_rng(self.seed).permutation(len(self.lengths)).tolist()
        return [[[i] for i in order[k : k + self.batch_size]] for k in range(0, len(order), self.batch_size)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--examples", type=int, default=32, help="in a batch; packed rows hold as many tokens")
    parser.add_argument("--vocabulary", type=int, default=32000)
    asked = parser.parse_args()
    steps, number = asked.steps, asked.examples
    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=asked.vocabulary, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=1024,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer("tiny-clm").save_pretrained(folder)
    objective = CausalLM(str(folder))
    objective.configure_model()
    objective._way = exact_way(objective.network, "llama", ROW)
    items = examples(3000, asked.vocabulary)
    lengths = np.array([len(item["input_ids"]) for item in items])
    rows = max(1, round(number * lengths.mean() / ROW))
    ways = {
        "padded": (Random(lengths, number, 0, True), "none"),
        "grouped by length": (BatchPlan(lengths, number, 0, True), "none"),
        "padding-free": (BatchPlan(lengths, number, 0, True), "padding-free"),
        "best-fit": (BatchPlan(lengths, rows, 0, True, capacity=ROW), "best-fit"),
    }
    print(
        f"lengths: mean {lengths.mean():.0f}, longest {lengths.max()}; {objective._way}; {torch.get_num_threads()} threads"
    )
    everywhere = {"padded, logits everywhere": ways["padded"]}
    batches = {
        name: [Batches(items, objective, packing)[deal] for _, deal in zip(range(steps), plan, strict=False)]
        for name, (plan, packing) in {**everywhere, **ways}.items()
    }
    batches["padded, logits everywhere"] = [with_all_logits(batch) for batch in batches["padded"]]
    ways = {**everywhere, **ways}
    spent = dict.fromkeys(ways, 0.0)
    for step in range(steps):  # in turns, so that what else the machine does slows all alike
        for name in ways:
            batch = batches[name][step]
            begun = time.perf_counter()
            total, _ = objective.token_losses(batch)
            total.backward()
            objective.network.zero_grad()
            if step:  # the first one allocates
                spent[name] += time.perf_counter() - begun
    speeds = {name: sum(b["tokens"] for b in batches[name][1:steps]) / spent[name] for name in ways}
    for name, (plan, packing) in ways.items():
        fill = plan.fill(packing == "none")
        ratio = speeds[name] / speeds["padded"]
        print(f"{name:<26} useful positions {fill:6.1%}  {speeds[name]:8,.0f} tokens/s  {ratio:.2f} x padded")


if __name__ == "__main__":
    main()
