"""Several adapters over one backbone: switch between them by request, combine them, and what each costs on disk."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import transformers
from peft.tuners.lora import LoraLayer
from rich.table import Table

from lit_fm import zoo
from lit_fm.adapt import bits_of
from lit_fm.adapt.delta import CONFIG
from lit_fm.adapted import load_over
from lit_fm.backbone import load_config
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.templates import prompt_text
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.screen import console
from lit_fm.ship.export import free_folder

How = Literal["linear", "ties", "dare_linear", "dare_ties"]
# Of the updates themselves, not of their factors, whose sums would mix one adapter's A with another's B.
_BY_PEFT = {"linear": "cat", "ties": "ties_svd", "dare_linear": "dare_linear_svd", "dare_ties": "dare_ties_svd"}


class Adapters:
    """A backbone that is loaded once, and adapters by name over it.

    Args:
        folders: of runs or adapters in peft's format, by name; all of the same backbone.

    Raises:
        ValueError: no adapter in a folder, one that peft cannot read, or one that does not go with the first.
    """

    def __init__(self, folders: dict[str, str]) -> None:
        if not folders:
            raise ValueError("there are no adapters: name one, such as {name: runs/lora/001}.")
        self.folders = {name: adapter_folder(folder) for name, folder in folders.items()}
        self._own = {name: f"adapter_{number}" for number, name in enumerate(folders)}  # peft allows no dots in names
        first, *others = self.folders
        base = _about(self.folders[first]).get("base_model_name_or_path", "")
        for name, folder in self.folders.items():
            about = _about(folder)
            of_tasks = about["peft_type"] if about.get("num_tasks") else None
            if kind := about.get("lit_fm_adaptation") or of_tasks:
                raise ValueError(
                    f"{folders[name]} is a {kind}, which peft cannot switch: give adapters such as LoRA's."
                )
            if zoo.resolve(about["base_model_name_or_path"]) != zoo.resolve(base):
                other = about["base_model_name_or_path"]
                raise ValueError(f"{folders[name]} is over {other}, the first one over {base}: they cannot share it.")
            if bits_of(folder) != bits_of(self.folders[first]):
                raise ValueError(
                    f"{folders[name]} learnt over another quantisation than the first one: merge it instead."
                )
        tokens = {name: _about(folder).get("trainable_token_indices") for name, folder in self.folders.items()}
        for name in others:
            if tokens[name] != tokens[first]:
                raise ValueError(
                    f"{folders[name]} cannot be put beside {folders[first]}: their new tokens are not the same: merge it."
                )
        self.network, self.tokenizer = load_over(self.folders[first], self._own[first])
        try:
            for name in others:
                self.network.load_adapter(str(self.folders[name]), self._own[name])
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{folders[name]} cannot be put beside {folders[first]}: {error}") from error
        self.network.to("cuda" if torch.cuda.is_available() else "cpu")

    def write(self, requests: Sequence[tuple[str | None, str]], max_new_tokens: int = 128) -> list[str]:
        """Answers to (adapter, prompt) in their order; without an adapter, the backbone's own.

        Raises:
            ValueError: there is no adapter of that name.
        """
        encoder = SegmentEncoder(self.tokenizer)
        end = encoder.suffix if self.network.config.is_encoder_decoder else []
        answers = [""] * len(requests)
        for name in dict.fromkeys(name for name, _ in requests):
            if name is not None and name not in self._own:
                raise ValueError(f"there is no adapter {name!r}: they are {', '.join(self._own)}.")
            numbers = [i for i, (asked, _) in enumerate(requests) if asked == name]
            prompts = [[*encoder.ids(prompt_text(requests[i][1])), *end] for i in numbers]
            if name is not None:
                self.network.set_adapter(self._own[name])
            with self.network.disable_adapter() if name is None else nullcontext():
                made = continue_prompts(self.network, self.tokenizer, prompts, max_new_tokens)
            for i, text in zip(numbers, made, strict=True):
                answers[i] = text
        return answers

    def combine(self, name: str, weights: dict[str, float], how: How = "linear", density: float = 0.5) -> None:
        """A new adapter out of several LoRAs, by peft: the weighted sum of their updates, TIES (Yadav et al. 2023) or
        DARE (Yu et al. 2024). The sum is exact, of the ranks' sum; the others are cut back to the highest rank.

        Args:
            density: the share of each update that TIES and DARE keep.

        Raises:
            ValueError: one is no plain LoRA.
        """
        for given in weights:
            about = _about(self.folders[given])
            beside = ("use_dora", "rank_pattern", "trainable_token_indices", "modules_to_save")
            if about.get("peft_type") != "LORA" or any(about.get(name) for name in beside):
                raise ValueError(
                    f"{given}: only LoRA alone can be combined, without DoRA, ranks by layer, new tokens, heads: merge it "
                    "instead."
                )
        more = {} if how == "linear" else {"density": density}
        own = [self._own[given] for given in weights]
        self.network.add_weighted_adapter(own, list(weights.values()), name, combination_type=_BY_PEFT[how], **more)
        self.network.peft_config[name].use_rslora = False  # what is combined is scaled already
        for layer in self.network.modules():
            if isinstance(layer, LoraLayer) and name in layer.scaling:
                layer.scaling[name] = 1.0
        self._own[name] = name
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
    several = Adapters({folder: folder for folder in adapters})
    try:
        several.combine("combined", adapters, how, density)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:  # peft's ways to say no
        raise ValueError(f"combine: {error}") from error
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as aside:
        several.network.save_pretrained(aside, selected_adapters=["combined"])
        several.tokenizer.save_pretrained(Path(aside, "combined"))
        load_over(Path(aside, "combined"))  # it can be read
        Path(aside, "combined").rename(target)
    console.print(f"{len(adapters)} adapters combined ({how}): {target}")


def whole_copy(backbone: str) -> int:
    """Bytes of a backbone's weights in float32, from its architecture alone."""
    config = load_config(backbone)
    made = getattr(transformers, (config.architectures or ["AutoModel"])[0], None)
    with torch.device("meta"):
        network = made(config) if made else transformers.AutoModel.from_config(config)
    return 4 * sum(p.numel() for p in network.parameters())


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
        copy = whole_copy(about["base_model_name_or_path"])
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
    text = Path(file).read_text(encoding="utf-8").removesuffix("\n")
    for number, line in enumerate(text.split("\n") if text else (), 1):  # splitlines would part at U+2028 as well
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
