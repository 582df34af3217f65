"""How long a run's export takes to write, as it is and folded into its backbone; measured once, kept in the run's folder.

One prompt at a time, greedily, a fixed number of new tokens: what a person waits for. The forms take turns, so that a
machine that slows down slows both; of the rounds, the median counts.
"""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from lit_fm.adapt import Adaptation, Full
from lit_fm.adapted import load_adapted
from lit_fm.backbone import decoder_start
from lit_fm.compare.runs import EXPORTS
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.templates import prompt_text
from lit_fm.durable import write_json
from lit_fm.evaluate.generate import fitting
from lit_fm.provenance import hardware
from lit_fm.screen import console
from lit_fm.ship.merge import check_mergeable

FILE = "latency.json"


def measure_latency(run: Path, prompts: int = 8, new_tokens: int = 32, rounds: int = 5) -> dict[str, Any]:
    """Seconds for each token that a run's export writes, `unmerged` and `merged`; None, and `why`, where it cannot.

    What is in `latency.json` is not measured again. Prompts are the first that the run was scored on.
    """
    path = run / FILE
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    about: dict[str, Any] = {
        "unit": "seconds per token",
        "prompts": prompts,
        "new_tokens": new_tokens,
        "rounds": rounds,
    }
    about |= {"batch_size": 1, "hardware": hardware(), "unmerged": None, "merged": None}
    try:
        forms, about["why"] = _forms(run)
        asked = _prompts(run, prompts, new_tokens, *next(iter(forms.values())))
    except ValueError as error:
        forms, about["why"], asked = {}, str(error), []
    if forms:
        console.print(f"Measuring how fast {run} writes ...", markup=False)
        about |= _measured(forms, asked, new_tokens, rounds)
        about["merged"] = about["unmerged"] if about["why"] == WHOLE else about["merged"]
    write_json(path, about)
    return about


WHOLE = "its weights are the backbone's own: there is nothing to fold in"


def _forms(run: Path) -> tuple[dict[str, tuple[Any, Any]], str]:
    """Network and tokenizer as exported and, where it is another one, merged; and why it is not.

    Raises:
        ValueError: it writes no text.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    adaptation = _adaptation(run)
    if not any((run / name).is_dir() for name in EXPORTS):
        raise ValueError("it exported nothing")
    if hasattr(adaptation, "tasks") and adaptation.tasks:
        raise ValueError("it has a soft prompt for each task")
    forms = {"unmerged": load_adapted(str(run))}
    try:
        check_mergeable(adaptation)
    except ValueError as error:
        why = str(error)
    else:
        why = f"its backbone is in {adaptation.bits} bits: merge the run, and compare that" if adaptation.bits else ""
        if not hasattr(forms["unmerged"][0], "merge_and_unload"):
            why = WHOLE
    if not why:
        network, tokenizer = load_adapted(str(run))
        forms["merged"] = network.merge_and_unload(safe_merge=True), tokenizer
    return {name: (network.to(device).eval(), tokenizer) for name, (network, tokenizer) in forms.items()}, why


def _adaptation(run: Path) -> Adaptation:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    parser = ArgumentParser()
    parser.add_subclass_arguments(Adaptation, "adaptation")
    given = config["model"]["init_args"].get("adaptation")
    return parser.instantiate(parser.parse_object({"adaptation": given})).adaptation if given else Full()


def _prompts(run: Path, number: int, new_tokens: int, network: Any, tokenizer: Any) -> list[torch.Tensor]:
    lines = (run / "scored.jsonl").read_text(encoding="utf-8").split("\n")[:number]
    encoder = SegmentEncoder(tokenizer)
    end = encoder.suffix if network.config.is_encoder_decoder else []
    device = next(network.parameters()).device
    ids = [[*encoder.ids(prompt_text(json.loads(line)["prompt"])), *end] for line in lines if line]
    fit = fitting(ids, network, tokenizer.bos_token_id, new_tokens)
    return [torch.tensor([one], device=device) for one in fit]


def _measured(
    forms: dict[str, tuple[Any, Any]], prompts: list[torch.Tensor], new_tokens: int, rounds: int
) -> dict[str, float]:
    """Of each form the median over rounds, in seconds per token. A round before them warms up and is left out."""
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds + 1):
        for name, (network, tokenizer) in forms.items():
            start = time.perf_counter()
            for ids in prompts:
                _write(network, tokenizer, ids, new_tokens)
            taken[name].append(time.perf_counter() - start)
    return {name: median(found[1:]) / (len(prompts) * new_tokens) for name, found in taken.items()}


@torch.no_grad()
def _write(network: Any, tokenizer: Any, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """So many tokens, whatever they are: none ends the text. What is on the GPU is waited for by reading it."""
    from transformers import GenerationConfig

    encoder = network.config.is_encoder_decoder
    how = GenerationConfig(
        do_sample=False, max_new_tokens=new_tokens, eos_token_id=None, pad_token_id=tokenizer.pad_token_id or 0,
        use_cache=True, decoder_start_token_id=decoder_start(network.config) if encoder else None,
    )  # fmt: skip
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    own, inner.generation_config = inner.generation_config, how
    try:
        made = network.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        inner.generation_config = own
    return made.cpu()
