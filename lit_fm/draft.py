"""A card drafted from a run: what its files tell is filled in, what only a person knows is marked TODO."""

import json
from pathlib import Path
from typing import Any

import yaml

from lit_fm.cards import read_card
from lit_fm.zoo import entries

_TAUGHT = {
    "CausalLM": "causal", "MaskedLM": "masked", "SpanCorruption": "seq2seq", "Denoising": "seq2seq",
}  # fmt: skip


def draft(run: Path, out: str | None = None) -> str:
    """Write a card for what a run made; says where.

    Raises:
        FileNotFoundError: the folder is no run that ended.
        FileExistsError: there is a file of that name.
    """
    lacking = [name for name in ("config.yaml", "run.json", "summary.json") if not (run / name).is_file()]
    if lacking:
        raise FileNotFoundError(
            f"{run} has no {lacking[0]}: it is no run, or did not end. Name one that did, such as runs/lora/001."
        )
    target = Path(out) if out else run / "README.md"
    if target.exists():
        raise FileExistsError(f"{target} is there already, and nothing is overwritten: give another file by --out.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {target.parent} for the card: make it, or give another file by --out."
        )
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    made, summary = (json.loads((run / name).read_text(encoding="utf-8")) for name in ("run.json", "summary.json"))
    target.write_text(text(run.resolve().parent.name, config, made, summary), encoding="utf-8")
    return f"A card to complete (look for TODO): {target}"


def text(name: str, config: dict[str, Any], made: dict[str, Any], summary: dict[str, Any]) -> str:
    """The card. No path of this machine stands in it."""
    model, data = config["model"], config["data"]
    settings = model["init_args"]
    objective, backbone = model["class_path"].rpartition(".")[2], _public(settings["backbone"])
    adaptation = (settings.get("adaptation") or {"class_path": "Full"})["class_path"].rpartition(".")[2]
    start = "random weights" if settings.get("from_scratch") else f"the weights of {backbone}"
    steps, learnt = summary.get("optimizer_steps", 0), summary.get("learnable_parameters")
    head = _head(objective, backbone, adaptation, settings, made, learnt)
    splits = [f"- {split}: {_counts(about)}" for split, about in made.get("data", {}).items()]
    measures = [f"| {key} | {_shown(value)} |" for key, value in summary.items() if isinstance(value, int | float)]
    versions = ", ".join(f"{package} {version}" for package, version in made.get("packages", {}).items() if version)
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n# {name}",
        f"TODO: one sentence that says what it is for. {objective} with {adaptation}, over {backbone}.",
        f"## Model Details\n\n- Architecture: {backbone}'s.\n- Learnable parameters: {learnt or 0:,}.\n- Made by: TODO.",
        "## Uses\n\nTODO: what it may be used for, and what not.",
        "## Bias, Risks and Limitations\n\nTODO: what it gets wrong, for whom, and what its text lacks.",
        "## Training Details\n\n" + "\n".join([
            f"- Data: {_source(data)}.", *splits,
            f"- From {start}, {steps:,} optimizer steps, seed {config.get('seed_everything')}.",
            f"- Again: `python -m lit_fm fit --config config.yaml`, the run's own. Versions: {versions}.",
        ]),
        "## Evaluation\n\n| what | value |\n|---|---|\n" + "\n".join(measures),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _head(
    objective: str, backbone: str, adaptation: str, settings: dict[str, Any], made: dict[str, Any], learnt: int | None
) -> dict[str, Any]:
    whole = adaptation == "Full" and settings.get("from_scratch")
    base = {} if settings.get("from_scratch") else {"base_model": backbone}
    entry = entries().get(settings["backbone"])
    card = read_card(entry) if entry else None
    return {
        **base,
        "license": card.head.get("license", "TODO") if card else "TODO",
        "tags": ["lit_fm", objective, adaptation],
        "facts": {
            "family": card.facts["family"] if card else "TODO",
            "objective": _TAUGHT.get(objective) or (card.facts["objective"] if card else None) or "TODO",
            "trained_by": objective,
            "year": int(made.get("started", "0")[:4]),
            "parameters": learnt if whole else (card.facts["parameters"] if card else None),
            "tolerance": 0.0,
            "tokens": made.get("data", {}).get("train", {}).get("tokens"),
            "petaflop_s_days": None,
            "sources": ["config.yaml", "run.json", "summary.json"],
        },
    }


def _public(path: str) -> str:
    """A name as it means something elsewhere: of a folder, its last part."""
    return Path(path).name if Path(path).is_absolute() or path.startswith((".", "~")) else path


def _source(data: dict[str, Any]) -> str:
    source = data.get("init_args", {}).get("source", "TODO")
    named = source.values() if isinstance(source, dict) else source if isinstance(source, list) else [source]
    return ", ".join(_public(str(one)) for one in named)


def _counts(about: dict[str, Any]) -> str:
    counted = [f"{about[key]:,} {key}" for key in ("examples", "tokens") if about.get(key)]
    return ", ".join([*counted, f"fingerprint {about.get('content', '')}"])


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
