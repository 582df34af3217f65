"""The work that `speed.py` gives to everybody: random networks, tokenizers, data, and the very batches of each step.

What lit_fm makes of the data is written down, so that all others train on the same tokens in the same order.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    LlamaConfig,
    T5Config,
)

from lit_fm import CausalLM, InstructionData, MaskedLM, SpanCorruption, TextCorpus
from lit_fm.data import smallworld
from lit_fm.data.batches import Batches
from lit_fm.data.tokenizer import train_tokenizer

VOCABULARY = 16_000
RATE = 3e-4
LEAST = 3
"""Steps, of which the first is not counted."""
LORA = {"rank": 16, "alpha": 32}
FAMILIES = {"lora": "causal", "clm": "causal", "tiny": "causal", "mlm": "masked", "span": "seq2seq"}


@dataclass(frozen=True)
class Size:
    """Of a network and its batches.

    Args:
        examples: of the instruction data, one epoch of which is trained on.
        steps: of the works on running text.
        batch: examples in a step of the former, `micro` at a time; of the latter it has `blocks`.
    """

    hidden: int = 512
    layers: int = 8
    length: int = 512
    examples: int = 80
    steps: int = 5
    batch: int = 16
    micro: int = 4
    blocks: int = 4


TINY = Size(hidden=64, layers=2, length=64, steps=150)
"""A step so small that what is round it shows."""


def rows_of(source: str | None, number: int) -> list[dict]:
    """Prompts and completions: of a file, or of smallworld's sentences, as long as people's questions and answers are.

    Raises:
        ValueError: the file has neither prompt and completion nor question and answer.
    """
    rng, made = random.Random(0), []
    if source:
        given = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines() if line.strip()]
        for row in given:
            pair = [row.get(a, row.get(b)) for a, b in (("prompt", "question"), ("completion", "answer"))]
            if None in pair:
                raise ValueError(
                    f"{source}: expected prompt and completion, or question and answer, got {sorted(row)}."
                )
            made.append(dict(zip(("prompt", "completion"), pair, strict=True)))
        rng.shuffle(made)
        return made
    texts = smallworld.documents("general", "train", 3000)
    sentences = [line for text in texts for line in text.split("\n") if len(line) > 30]
    for _ in range(number):  # log-normal numbers of words, a fit to those of GSM8K
        words = [int(np.exp(rng.gauss(mean, spread))) for mean, spread in ((3.8, 0.36), (4.1, 0.5))]
        prompt, completion = (_words(rng, sentences, max(5, count)) for count in words)
        made.append({"prompt": prompt, "completion": completion})
    return made


def _words(rng: random.Random, sentences: list[str], count: int) -> str:
    found: list[str] = []
    while len(found) < count:
        found += rng.choice(sentences).split()
    return " ".join(found[:count])


def prepare(home: Path, work: str, size: Size, source: str | None) -> Path:
    """A folder with model, tokenizer, data, `fit.yaml` and `batches.pt`; made once."""
    folder, family = home / work, FAMILIES[work]
    if (folder / "batches.pt").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(source, 4000)
    texts = [{"text": f"{row['prompt']}\n{row['completion']}"} for row in rows]
    _write(folder / "text.jsonl", texts)
    _write(folder / "rows.jsonl", rows[: size.examples])
    model = folder / "model"
    train_tokenizer(str(folder / "text.jsonl"), str(model), "bpe", family, 2000 if work == "tiny" else VOCABULARY)
    network = _network(family, size, VOCABULARY if work != "tiny" else 2000)
    network.save_pretrained(model)
    settings = _settings(work, size, folder)
    (folder / "fit.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    torch.save(_batches(settings), folder / "batches.pt")
    return folder


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _network(family: str, size: Size, vocabulary: int):
    torch.manual_seed(0)
    heads, wide = max(1, size.hidden // 64), int(size.hidden * 2.75)
    ids = {"vocab_size": vocabulary, "pad_token_id": 0}
    if family == "causal":
        config = LlamaConfig(
            hidden_size=size.hidden, intermediate_size=wide, num_hidden_layers=size.layers, num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 2), bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
            max_position_embeddings=size.length + 8, **ids,
        )  # fmt: skip
        return AutoModelForCausalLM.from_config(config)
    if family == "masked":
        config = BertConfig(
            hidden_size=size.hidden, intermediate_size=4 * size.hidden, num_hidden_layers=size.layers,
            num_attention_heads=heads, max_position_embeddings=size.length + 8, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, **{**ids, "pad_token_id": 1},
        )  # fmt: skip
        return AutoModelForMaskedLM.from_config(config)
    config = T5Config(
        d_model=size.hidden, d_kv=64, d_ff=2 * size.hidden, num_layers=size.layers, num_heads=heads, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, eos_token_id=1, decoder_start_token_id=0, **ids,
    )  # fmt: skip
    return AutoModelForSeq2SeqLM.from_config(config)


def _settings(work: str, size: Size, folder: Path) -> dict:
    """lit_fm's config of the work."""
    objective = {"masked": "MaskedLM", "seq2seq": "SpanCorruption"}.get(FAMILIES[work], "CausalLM")
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": RATE, "weight_decay": 0.0, "fused": True}}
    model = {"backbone": str(folder / "model"), "optimizer": optimizer, "schedule": {"kind": "constant", "warmup": 0}}
    if work == "lora":
        model["adaptation"] = {"class_path": "lit_fm.LoRA", "init_args": LORA}
        more = {"source": str(folder / "rows.jsonl"), "max_length": size.length, "validation_share": 0.0}
        data = {"class_path": "lit_fm.InstructionData", "init_args": more}
        more |= {"packing": "padding-free", "batch_size": size.micro}
    else:
        more = {"source": str(folder / "text.jsonl"), "block_size": size.length, "batch_size": size.blocks}
        data = {"class_path": "lit_fm.TextCorpus", "init_args": {**more, "held_out": 1}}
    windows = {"max_epochs": 1, "accumulate_grad_batches": size.batch // size.micro}
    ends = windows if work == "lora" else {"max_epochs": -1, "max_steps": size.steps}
    return {
        "model": {"class_path": f"lit_fm.{objective}", "init_args": model},
        "data": data,
        "trainer": {"accelerator": "cpu", "enable_checkpointing": False, "limit_val_batches": 0, **ends},
        "score": {"examples": 0},
        "run": {"tracker": "none", "resume": "never"},
    }


def _batches(settings: dict) -> list[dict]:
    """Of each step: its tokens; and its examples, or rows of ids with labels (and what a decoder writes)."""
    objectives = {f"lit_fm.{kind.__name__}": kind for kind in (CausalLM, MaskedLM, SpanCorruption)}
    kinds = {f"lit_fm.{kind.__name__}": kind for kind in (InstructionData, TextCorpus)}
    objective = objectives[settings["model"]["class_path"]](settings["model"]["init_args"]["backbone"])
    objective.configure_model()
    data = kinds[settings["data"]["class_path"]](**settings["data"]["init_args"])
    data.attach(objective)
    data.setup("fit")
    made, steps = [], settings["trainer"].get("max_steps")
    plan = data.plan()
    plan.window = window = settings["trainer"].get("accumulate_grad_batches", 1)
    for number, deal in enumerate(plan):
        if steps and len(made) == steps:
            break
        items = [data.items["train"][number] for number in deal.numbers]
        batch = Batches(data.items["train"], objective)[deal]
        if "labels" in items[0]:
            rows = [tuple(torch.tensor(item[name]).long() for name in ("input_ids", "labels")) for item in items]
        else:
            shape = batch.get("decoder_input_ids", batch["input_ids"]).shape
            labels = torch.full((shape.numel(),), -100)
            labels[batch["rows"]] = batch["targets"]
            rows = list(zip(batch["input_ids"], labels.view(shape), strict=True))
        if number % window:  # of the step that the one before is of
            made[-1]["tokens"] += batch["tokens"]
            made[-1]["rows"] += rows
        else:
            made.append({"tokens": batch["tokens"], "rows": rows})
    if len(made) < (steps or LEAST):
        raise ValueError(
            f"the data is enough for {len(made)} steps of {steps or LEAST}: give more examples, shorter ones, or a larger "
            "--length, or ask for fewer --steps."
        )
    return made
