"""The verb `evaluate`: a model on tasks of lm-evaluation-harness, and on plain text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.table import Table

from lit_fm.adapted import load_adapted
from lit_fm.data.corpus import TextCorpus
from lit_fm.data.documents import documents
from lit_fm.durable import free, write_json
from lit_fm.evaluate.generate import virtual_tokens
from lit_fm.evaluate.harness import KEPT, ask, measures
from lit_fm.objectives.causal import CausalLM
from lit_fm.screen import console


class Texts(TextCorpus):
    """Files that are measured from end to end, each a part."""

    def documents_by_split(self, source: str) -> Iterator[tuple[str, str]]:
        for texts in documents(source, self.column).values():
            for text in texts():
                yield "test", text


def evaluate(
    model: str,
    text: list[str] | None = None,
    tasks: str | None = None,
    task_path: str | None = None,
    limit: int | None = None,
    shots: int | None = None,
    block_size: int = 256,
    batch_size: int = 16,
    out: str | None = None,
) -> None:
    """Measure a model on tasks of lm-evaluation-harness, or its perplexity and bits per byte on text.

    Args:
        model: a run folder, an adapter folder, a zoo entry, or a Hugging Face id.
        text: files of text (documents parted by empty lines), or of rows with a field `text`.
        tasks: of the harness, with commas between.
        task_path: a folder with YAML files of more tasks.
        limit: documents of each task.
        shots: solved examples before each document, instead of what the task says.
        block_size: tokens of text that are predicted in a row, each from those of its block alone.
        batch_size: documents, or blocks, at a time.
        out: the JSON file to write; `evaluate.json` in a run's folder, or by the model's name, where nothing is said.
    """
    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    if not text and not names:
        raise ValueError("nothing to evaluate on: give --tasks NAME,NAME or --text FILE.")
    _check(task_path, limit=limit, shots=shots, block_size=block_size, batch_size=batch_size)
    network, tokenizer = load_adapted(model)
    if hasattr(getattr(network, "active_peft_config", None), "num_tasks"):
        raise ValueError(f"{model} has a soft prompt for each task, and a text is of none: ask it by `test --run`.")
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    found: dict[str, Any] = {"model": model}
    if text:
        found["text"] = text_measures(network, tokenizer, text, block_size, batch_size)
        console.print(_by_file(found["text"], text[0]))
    if names:
        made = ask(network, tokenizer, names, task_path, limit, shots, batch_size)
        version = made.get("lm_eval_version")
        found |= {"lm_eval": version, "limit": limit, **{key: made[key] for key in KEPT if key in made}}
        console.print(_by_task(measures(made)))
    folder = Path(model)
    usual = folder / "evaluate.json" if folder.is_dir() else Path(f"evaluate-{model.replace('/', '-')}.json")
    path = free(Path(out) if out else usual)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, json.loads(json.dumps(found, default=str)))
    console.print(f"Written to {path}")


def _check(task_path: str | None, **numbers: int | None) -> None:
    for name, value in numbers.items():
        least = 0 if name == "shots" else 1
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}, expected at least {least}: raise it.")
    if task_path and not Path(task_path).exists():
        raise FileNotFoundError(f"--task_path: there is no folder {task_path!r}: check the path.")


def text_measures(network: Any, tokenizer: Any, files: list[str], block_size: int, batch_size: int) -> dict[str, float]:
    """Loss, perplexity and bits per byte, as `test` tells them of a test split; of several files, of each.

    Raises:
        ValueError: the network reads to both sides, or has an encoder: its loss is no code length.
        FileNotFoundError: no such file.
    """
    if network.config.is_encoder_decoder:
        raise ValueError("--text needs a causal language model: an encoder-decoder gives a text no probability.")
    objective = CausalLM(network.config._name_or_path)
    objective.network, objective.tokenizer = network, tokenizer
    objective.adaptation.virtual_tokens = virtual_tokens(network)
    names = [Path(file).name for file in files]
    sources = dict(zip(names if len({*names}) == len(names) else files, files, strict=True))
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(devices=1, enable_model_summary=False, use_distributed_sampler=False, **quiet)
    data = Texts(sources, block_size=block_size, batch_size=batch_size)
    trainer.test(objective, datamodule=data, verbose=False)
    return {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}


def _by_file(found: dict[str, float], alone: str) -> Table:
    names = ("loss", "perplexity", "bits_per_byte")
    table = Table("text", *(name.replace("_", " ") for name in names))
    for part in dict.fromkeys(name.rpartition("/")[0] for name in found if name.rpartition("/")[2] != "loss"):
        values = [found[f"{part}/{name}" if part else name] for name in names]
        table.add_row(part or alone, *(f"{value:,.3f}" for value in values))
    return table


def _by_task(found: dict[str, dict[str, float]]) -> Table:
    table = Table("task", "measure", "value")
    for task, of in found.items():
        for name, value in of.items():
            table.add_row(task, name, f"{value:.4f}")
    return table
