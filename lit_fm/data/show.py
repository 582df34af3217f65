"""`data show`: examples as the model sees them."""

from itertools import groupby
from typing import Any

import numpy as np
from rich.text import Text

from lit_fm.screen import console

STYLES = {(True, False): "green", (False, False): "bright_black", (True, True): "reverse green"}
STYLES[False, True] = "reverse bright_black"
"""Of a token, by whether it is learnt and whether it is a special one."""


def show(data: Any, objective: Any, number: int, split: str = "train") -> None:
    """Print the first examples of a split: what is learnt in colour, what is only read in grey, special tokens inverted."""
    items = data.items.get(split)
    if items is None:
        raise ValueError(f"the data has no {split} split: it has {sorted(data.items)}.")
    plain = not console.is_terminal
    marks = "what is learnt stands between \u27e6 and \u27e7" if plain else "learnt in green, only read in grey"
    begin = 0  # of the part, in the whole
    for part, of in data.parts(split).items():
        name = f"{split}: {part}" if part else split
        console.print(f"{min(number, len(of))} of {len(of):,} examples of {name}; {marks}.")
        about = data.report.get(name, {})
        if "kind" in about:
            console.print(f"Rows were read as: {about['kind']}.")
        if dropped := ", ".join(f"{n:,} x {why}" for why, n in about.get("dropped", {}).items()):
            console.print(f"Dropped of {about['rows']:,} rows: {dropped}.")
        for index in range(min(number, len(of))):
            console.rule(f"{name} {index + 1}", align="left")
            draw = (data.seed, 0, begin + index) if split == "train" else None
            _print(objective.seen(of[index], draw), objective, plain)
        begin += len(of)


def _print(seen: list[tuple[str, Any, Any]], objective: Any, plain: bool) -> None:
    for name, ids, learnt in seen:
        line = Text(f"{name}: " if name else "")
        line.append(ids if isinstance(ids, str) else written(ids, learnt, objective.tokenizer, plain))
        if not isinstance(ids, str):
            line.append(f"\n({len(ids)} tokens, {int(np.sum(learnt))} learnt)", "italic")
        console.print(line, soft_wrap=True)


def written(ids: np.ndarray, learnt: np.ndarray, tokenizer: Any, plain: bool) -> Text:
    """Tokens as text. `plain`: marks instead of colours around what is learnt."""
    special = set(tokenizer.all_special_ids)
    text, marked = Text(), False
    kinds = [(bool(learn), int(token) in special) for token, learn in zip(ids, learnt, strict=True)]
    for (learn, is_special), group in groupby(zip(kinds, ids.tolist(), strict=True), key=lambda pair: pair[0]):
        piece = tokenizer.decode([token for _, token in group], skip_special_tokens=False)
        if plain and learn != marked:
            text.append("\u27e6" if learn else "\u27e7")
            marked = learn
        text.append(piece.replace("\n", "\u21b5\n"), STYLES[learn, is_special])
    return text.append("\u27e7") if marked else text
