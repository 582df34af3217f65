"""Cards: what is known of a model, for a person and for a program. Hugging Face's format, with `facts` in its head."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_fm.plan.rule_of_thumb import TRAINED

SECTIONS = ("Model Details", "Uses", "Bias, Risks and Limitations", "Training Details", "Evaluation")
OBJECTIVES = ("causal", "masked", "seq2seq", "permutation")
FACTS = ("family", "objective", "trained_by", "year", "parameters", "tolerance", "tokens", "petaflop_s_days", "sources")
"""What every card says, `null` where it was not published. `parameters` is the published figure, from which the network
that config.json describes may differ by the share `tolerance`; `trained_by` names the objective of ours that trains it."""
_WIDTHS, _HEADS = ("hidden_size", "d_model", "n_embd"), ("num_attention_heads", "n_head", "num_heads")
_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "encoder_layers")
_PETAFLOP_S_DAY = 1e15 * 86_400


@dataclass(frozen=True)
class Card:
    """A folder of the zoo, read without loading anything heavy."""

    folder: Path
    head: dict[str, Any]
    text: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def facts(self) -> dict[str, Any]:
        """Those that the card gives; none where it is not written yet."""
        return {**dict.fromkeys(FACTS), **(self.head.get("facts") or {})}

    @property
    def licence(self) -> str:
        """An identifier of Hugging Face's, or the name that stands behind `other`."""
        found = str(self.head.get("license", "unknown"))
        return str(self.head.get("license_name", found)) if found == "other" else found

    @property
    def hub(self) -> str | None:
        """The Hugging Face id of public weights."""
        return self.head.get("base_model")

    @property
    def weights(self) -> int:
        """Bytes of weights in the folder."""
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))

    @property
    def summary(self) -> str:
        """The first paragraph under the title."""
        paragraphs = [part.strip() for part in self.text.split("\n\n")]
        return " ".join(next((part for part in paragraphs if part and not part.startswith("#")), "").split())

    @property
    def petaflop_s_days(self) -> float | None:
        """6 N D, half of it in an encoder-decoder, where a token meets one of two stacks: Brown et al. 2020, appendix D."""
        parameters, tokens = self.facts["parameters"], self.facts["tokens"]
        share = 0.5 if self.facts["objective"] == "seq2seq" else 1.0
        return 6 * parameters * tokens * share / _PETAFLOP_S_DAY if parameters and tokens else None

    @property
    def bytes_to_train(self) -> int | None:
        """By the rule of thumb: float32 weights, gradients, Adam's two moments, and half as much again for activations."""
        return self.facts["parameters"] and TRAINED * self.facts["parameters"]

    @property
    def shape(self) -> tuple[int, str, int]:
        """Width, layers (of encoder + decoder), heads."""
        depth = str(_first(self.config, _DEPTHS))
        decoder = self.config.get("decoder_layers") or self.config.get("num_decoder_layers")
        return (
            _first(self.config, _WIDTHS),
            f"{depth} + {decoder}" if decoder else depth,
            _first(self.config, (*_HEADS, "encoder_attention_heads")),
        )


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int:
    return next((config[name] for name in names if name in config), 0)


def read_card(folder: Path) -> Card:
    """The card of a folder. Without a README.md, one that asks for it.

    Raises:
        ValueError: its head is not YAML, or its config.json is not JSON.
    """
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{folder.name} has no card: write {path}."
    head = ""
    if text.startswith("---\n") and "\n---\n" in text:
        head, text = text.removeprefix("---\n").split("\n---\n", 1)
    try:
        about = yaml.safe_load(head) or {}
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        what = "the head of README.md" if isinstance(error, yaml.YAMLError) else "config.json"
        raise ValueError(f"{folder}: {what} cannot be read: {str(error).splitlines()[0]}. Correct it.") from error
    return Card(folder, about, text.strip(), config)


def lacks(card: Card) -> list[str]:
    """What a card of the zoo must have and this one has not."""
    missing = [f"the section ## {title}" for title in SECTIONS if f"\n## {title}\n" not in card.text]
    missing += [f"{key} in its head" for key in ("license", "tags", "facts") if not card.head.get(key)]
    given = card.head.get("facts") or {}
    missing += [f"facts.{key}" for key in FACTS if key not in given]
    missing += [f"facts.{key} that is known" for key in FACTS[:6] + FACTS[8:] if key in given and given[key] is None]
    if given.get("objective") not in (None, *OBJECTIVES):
        missing.append(f"facts.objective out of {', '.join(OBJECTIVES)}")
    return missing
