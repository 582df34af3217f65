"""Adaptations that peft carries out."""

import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_fm.adapt.base import Adaptation
from lit_fm.adapt.layers import leaves, linear_layers
from lit_fm.nearest import did_you_mean

QUANTISED = "quantised.json"
"""Beside an adapter: in how many bits its backbone was."""


def bits_of(folder: Path) -> int | None:
    """In how many bits the backbone of an exported adapter was."""
    path = folder / QUANTISED
    return json.loads(path.read_text())["bits"] if path.is_file() else None


class Tuner(Adaptation):
    """One of peft's tuners; a subclass says which, and with which settings."""

    unmergeable: str | None = None

    @abstractmethod
    def config(self, network: Any) -> Any:
        """peft's configuration for this network."""

    def change(self, network: Any) -> Any:
        from peft import get_peft_model

        config = self.config(network)
        try:
            return get_peft_model(network, config)
        except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as error:  # peft's ways to say no
            said = (str(error).splitlines() or [""])[0][:300]
            raise ValueError(
                f"adaptation: {config.peft_type.value} does not work on {type(network).__name__}: {said} Choose another."
            ) from error

    def export(self, network: Any, folder: Path, base: str) -> None:
        network.save_pretrained(folder)
        if self.bits:  # over another backbone than the quantised one it would say something else
            (folder / QUANTISED).write_text(json.dumps({"bits": self.bits}) + "\n")


def called(target: str, network: Any) -> list[str]:
    """The linear layers whose name ends so."""
    return [name for name in linear_layers(network) if name == target or name.endswith(f".{target}")]


def check_targets(targets: str | Sequence[str], network: Any, setting: str = "targets") -> None:
    """peft ignores a name that matches nothing while another one matches.

    Raises:
        ValueError: such a name, with the nearest right one; or one of two tied matrices.
    """
    if isinstance(targets, str):
        return
    head = network.get_output_embeddings()
    tied = head is not None and head.weight is network.get_input_embeddings().weight
    for target in targets:
        matched = called(target, network)
        if not matched:
            raise ValueError(
                f"adaptation.{setting}: no linear layer is called {target!r}: {did_you_mean(target, leaves(network))} "
                f"This backbone has {leaves(network)}."
            )
        if tied and any(network.get_submodule(name) is head for name in matched):
            raise ValueError(
                f"adaptation.{setting}: {target!r} shares its matrix with the input embeddings, and an update of one of "
                "two tied matrices cannot be merged: leave it out."
            )


def rows_of_tokens(network: Any, tokens: Sequence[int]) -> dict[str, list[int]]:
    """Which rows of which modules are those of some tokens: of the embeddings, and of the head where it is not tied."""
    tables = [network.get_input_embeddings(), network.get_output_embeddings()]
    names = {id(module): name for name, module in network.named_modules()}
    if tables[1] is None or tables[1].weight is tables[0].weight:
        tables = tables[:1]
    return {names[id(table)]: list(tokens) for table in tables}


HEADS = ("classifier", "score")
"""Modules that peft itself lets learn and keeps, beside a network that tells classes apart."""


def besides(new: Sequence[str]) -> dict[str, Any]:
    """Settings of peft for modules that learn as they are, and are exported. Of a head that peft keeps, all of it."""
    new = list(dict.fromkeys(re.sub(rf"(^|.*\.)({'|'.join(HEADS)})\..*", r"\1\2", name) for name in new))
    inside = rf".*({'|'.join(map(re.escape, new))})(\..*)?"
    return {"modules_to_save": list(new), "exclude_modules": inside} if new else {}
