"""Several adapters over one backbone: switch between them by request, combine them, and what each costs on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from rich.table import Table

from lit_fm import zoo
from lit_fm.adapt.delta import CONFIG
from lit_fm.adapted import put_in, writer_class
from lit_fm.backbone import load_network, load_tokenizer
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.templates import prompt_text
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.screen import console
from lit_fm.ship.export import free_folder

How = Literal["linear", "ties", "dare_linear", "dare_ties"]


class Adapters:
    """A backbone that is loaded once, and adapters by name over it.

    Args:
        folders: of runs or adapters in peft's format, by name; all of the same backbone.

    Raises:
        ValueError: no adapter in a folder, one that peft cannot read, or one of another backbone.
    """

    def __init__(self, folders: dict[str, str]) -> None:
        self.folders = {name: adapter_folder(folder) for name, folder in folders.items()}
        bases = {name: _about(folder).get("base_model_name_or_path", "") for name, folder in self.folders.items()}
        self.base = next(iter(bases.values()))
        for name, folder in self.folders.items():
            if "lit_fm_adaptation" in _about(folder):
                kind = _about(folder)["lit_fm_adaptation"]
                raise ValueError(
                    f"{folders[name]} is a {kind}, which peft cannot switch: give adapters such as LoRA's."
                )
            if zoo.resolve(bases[name]) != zoo.resolve(self.base):
                raise ValueError(
                    f"{folders[name]} is over {bases[name]}, the first one over {self.base}: they cannot share it."
                )
        first, *others = self.folders
        self.network = put_in(load_network(self.base, writer_class(self.base)), self.folders[first], first)
        for name in others:
            self.network.load_adapter(str(self.folders[name]), name)
        folder = self.folders[first]
        self.tokenizer = load_tokenizer(str(folder) if (folder / "tokenizer.json").is_file() else self.base)

    def write(self, requests: Sequence[tuple[str | None, str]], max_new_tokens: int = 128) -> list[str]:
        """Answers to (adapter, prompt) in their order; without an adapter, the backbone's own.

        Raises:
            ValueError: there is no adapter of that name.
        """
        encoder = SegmentEncoder(self.tokenizer)
        end = encoder.suffix if self.network.config.is_encoder_decoder else []
        answers = [""] * len(requests)
        for name in dict.fromkeys(name for name, _ in requests):
            if name is not None and name not in self.network.peft_config:
                raise ValueError(f"there is no adapter {name!r}: they are {', '.join(self.network.peft_config)}.")
            numbers = [i for i, (asked, _) in enumerate(requests) if asked == name]
            prompts = [[*encoder.ids(prompt_text(requests[i][1])), *end] for i in numbers]
            if name is None:
                with self.network.disable_adapter():
                    made = continue_prompts(self.network, self.tokenizer, prompts, max_new_tokens)
            else:
                self.network.set_adapter(name)
                made = continue_prompts(self.network, self.tokenizer, prompts, max_new_tokens)
            for i, text in zip(numbers, made, strict=True):
                answers[i] = text
        return answers

    def combine(self, name: str, weights: dict[str, float], how: How = "linear", density: float = 0.5) -> None:
        """A new adapter out of several, by peft: their weighted sum, TIES (Yadav et al. 2023) or DARE (Yu et al. 2024).

        Args:
            density: the share of each update that TIES and DARE keep.
        """
        more = {} if how == "linear" else {"density": density}
        self.network.add_weighted_adapter(list(weights), list(weights.values()), name, combination_type=how, **more)
        self.network.set_adapter(name)


def adapter_folder(name: str) -> Path:
    """The folder with an adapter in it: of a run, or itself.

    Raises:
        ValueError: there is none.
    """
    found = [folder for folder in (Path(name, "adapter"), Path(name)) if (folder / CONFIG).is_file()]
    if not found:
        raise ValueError(f"{name} holds no adapter ({CONFIG}): give a run that learnt one, or an adapter's folder.")
    return found[0]


def _about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def combine(adapters: dict[str, float], out: str, how: How = "linear", density: float = 0.5) -> None:
    """Make one adapter out of several over the same backbone.

    Args:
        adapters: folders of runs or adapters, and the weight of each.
        out: a new folder, in peft's format.
        how: as a weighted sum, by TIES, or by DARE before one of the two.
        density: the share of each update that TIES and DARE keep.

    Raises:
        ValueError: fewer than two adapters, or they cannot be combined.
    """
    if len(adapters) < 2 or not 0 < density <= 1:
        raise ValueError(
            f"combine needs two adapters and density in 0..1, got {len(adapters)} and {density}: correct them."
        )
    target = free_folder(out)
    names = {f"adapter_{i}": folder for i, folder in enumerate(adapters)}
    several = Adapters(names)
    try:
        several.combine("combined", dict(zip(names, adapters.values(), strict=True)), how, density)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:  # peft's ways to say no
        raise ValueError(f"combine: {error}") from error
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as aside:
        several.network.save_pretrained(aside, selected_adapters=["combined"])
        several.tokenizer.save_pretrained(Path(aside, "combined"))
        Path(aside, "combined").rename(target)
    console.print(f"{len(adapters)} adapters combined ({how}): {target}")


def adapters(folders: list[str]) -> None:
    """What adapters cost on disk, beside a copy of the whole backbone for each.

    Args:
        folders: of runs or adapters.
    """
    table = Table("adapter", "of", "bytes", "a whole copy", "share")
    total = whole = 0
    for name in folders:
        folder = adapter_folder(name)
        about = _about(folder)
        base = load_network(about["base_model_name_or_path"], writer_class(about["base_model_name_or_path"]))
        copy = sum(p.numel() * p.element_size() for p in base.parameters())
        own = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        kind = about.get("peft_type") or about.get("lit_fm_adaptation")
        table.add_row(name, kind, f"{own:,}", f"{copy:,}", f"{own / copy:.1%}")
        total, whole = total + own, whole + copy
    if len(folders) > 1:
        table.add_row("together", "", f"{total:,}", f"{whole:,}", f"{total / whole:.1%}")
    console.print(table)


def switch(adapters: dict[str, str], file: str, max_new_tokens: int = 128) -> None:
    """Answer requests over one backbone, each with the adapter that it names; one JSON object a line.

    Args:
        adapters: folders of runs or adapters, by name.
        file: JSONL with `prompt`, and `adapter` where not the backbone alone is asked.
        max_new_tokens: an answer is cut there at the latest.

    Raises:
        ValueError: a line is no such request.
    """
    requests = []
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            requests.append((row.get("adapter"), str(row["prompt"])))
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                f'{file}, line {number}: expected {{"prompt": ..., "adapter": ...}}, got {line[:80]!r}.'
            ) from error
    several = Adapters(adapters)
    for (name, prompt), answer in zip(requests, several.write(requests, max_new_tokens), strict=True):
        print(json.dumps({"adapter": name, "prompt": prompt, "answer": answer}, ensure_ascii=False))
