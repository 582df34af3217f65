"""The zoo as a person looks at it: a list to choose from, one card, several side by side, and the page of them all."""

import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Column, Table

from lit_fm import SHARE
from lit_fm.cards import Card, read_card
from lit_fm.draft import draft
from lit_fm.nearest import did_you_mean
from lit_fm.plan.quantity import number, short
from lit_fm.zoo import entries

Action = Literal["list", "show", "compare", "new-card", "readme"]


def zoo(
    action: Action = "list",
    names: list[str] | None = None,
    family: str | None = None,
    objective: str | None = None,
    license: str | None = None,
    smallest: str | None = None,
    largest: str | None = None,
    out: str | None = None,
) -> None:
    """The model zoo.

    Args:
        action: `list` the entries; `show` the card of one; `compare` several in a table; draft a `new-card` for a run;
            print the zoo's `readme`.
        names: of the entries to show or compare; for `new-card`, the run's folder.
        family: list only these, such as bert, gpt, llama, t5.
        objective: list only what was trained so: causal, masked, seq2seq, permutation, or a class such as MaskedLM.
        license: list only what has this licence, such as apache-2.0.
        smallest: list only what has so many parameters or more, such as 1B.
        largest: list only what has so many parameters or fewer.
        out: the file for the new card; README.md in the run's folder where nothing is said.

    Raises:
        ValueError: a name that does not exist, or a setting that does not go with the action.
    """
    filters = {"family": family, "objective": objective, "license": license, "smallest": smallest, "largest": largest}
    given = names or []
    misplaced = [key for key, value in filters.items() if value is not None and action != "list"]
    misplaced += ["out"] if out is not None and action != "new-card" else []
    if misplaced:
        raise ValueError(f"zoo {action} takes no --{misplaced[0]}: it goes with {'new-card' if out else 'list'}.")
    if action in ("list", "readme"):
        if given:
            raise ValueError(f"zoo {action} takes no name, got {given[0]!r}: zoo show {given[0]} shows its card.")
        _list(filters) if action == "list" else print(page(map(read_card, entries().values())), end="")
    elif action == "compare":
        _compare([_card(name, action) for name in given])
    else:
        what = "a run's folder" if action == "new-card" else "an entry: zoo list has them"
        if not given:
            raise ValueError(f"zoo {action} needs the name of {what}.")
        if len(given) > 1:
            raise ValueError(f"zoo {action} takes one name, got {', '.join(given)}: zoo compare takes several.")
        print(draft(Path(given[0]), out) if action == "new-card" else _card(given[0], action).text)


def _card(name: str, action: str) -> Card:
    known = entries()
    if name not in known:
        raise ValueError(f"zoo {action}: there is no entry {name!r}: {did_you_mean(name, known)}")
    return read_card(known[name])


# Choose.


def _list(filters: dict[str, str | None]) -> None:
    every = cards = [read_card(folder) for folder in entries().values()]
    for key, kept in _KEPT.items():
        if (wanted := filters[key]) is not None:
            known = {word for card in every for word in kept(card)}
            if wanted.lower() not in {word.lower() for word in known}:
                raise ValueError(f"--{key} {wanted}: no entry has it: {did_you_mean(wanted, known)}")
            cards = [card for card in cards if wanted.lower() in {word.lower() for word in kept(card)}]
    least, most = (number(text, f"--{key}") if (text := filters[key]) else None for key in ("smallest", "largest"))
    if least and most and least > most:
        raise ValueError(f"--smallest {filters['smallest']} is above --largest {filters['largest']}: exchange them.")
    if least or most:
        cards = [c for c in cards if (n := c.facts["parameters"]) and (least or 0) <= n <= (most or n)]
    rows = [
        (c.name, _short(c.facts["parameters"]), c.facts["objective"] or "", _where(c), c.licence, c.summary)
        for c in cards
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
    wide = shutil.get_terminal_size((10_000, 24)).columns if sys.stdout.isatty() else 10_000
    for row in rows:
        line = "  ".join([*map(str.ljust, row, widths), row[5]]).rstrip()
        print(line if len(line) <= wide else line[: wide - 1] + "…")
    print(f"\n{len(rows)} of {len(every)} entries. A folder with config.json in {SHARE / 'zoo'} is one.")


_KEPT: dict[str, Callable[[Card], set[str]]] = {
    "family": lambda card: {card.facts["family"] or card.config["model_type"]},
    "objective": lambda card: {word for key in ("objective", "trained_by") if (word := card.facts[key])},
    "license": lambda card: {card.licence},
}


def _where(card: Card) -> str:
    """Where the weights are."""
    return f"{card.weights / 1e6:.1f} MB of weights" if card.weights else card.hub or "no weights"


# Compare.


def _compare(cards: list[Card]) -> None:
    if len(cards) < 2:
        raise ValueError("zoo compare needs the names of two entries or more: zoo list has them.")
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    name = Column("", min_width=max(len(card.name) for card in cards))  # never cut, however narrow the screen
    quantities = ("size", "width", "layers", "heads", "tokens", "PF/s-days", "memory to train")
    table = Table(name, *quantities, padding=(0, 1 if wide >= 100 else 0))
    for card in cards:
        width, layers, heads = card.shape
        memory, compute = card.bytes_to_train, card.petaflop_s_days
        table.add_row(
            card.name, _short(card.facts["parameters"]), f"{width:,}", layers, str(heads), _short(card.facts["tokens"]),
            f"{compute:,.3g}" if compute and compute < 1000 else f"{compute:,.0f}" if compute else "",
            f"{memory / 1e9:,.3g} GB" if memory and memory < 1e12 else f"{memory / 1e9:,.0f} GB" if memory else "",
        )  # fmt: skip
    console = Console(highlight=False, width=wide)
    console.print(table)
    console.print(
        "Size: parameters. PF/s-days: petaflop/s-days to train by 6 N D, half of that for an encoder-decoder. Memory: "
        "24 bytes a parameter, with Adam in float32. Empty: not published."
    )


# The page of them all.


def page(cards: Iterable[Card]) -> str:
    """zoo/README.md, which a test compares with the cards."""
    lines = [
        "# The zoo",
        "",
        "Made from the cards by `python -m lit_fm zoo readme > zoo/README.md`: change a card, not this page.",
        "Parameters are the published figures; what each `config.json` builds is within its card's tolerance.",
        "",
        "| entry | year | parameters | width | layers | heads | trained to | tokens | licence | weights |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for card in sorted(
        cards, key=lambda card: (card.facts["year"] or 0, card.facts["family"] or "", card.facts["parameters"] or 0)
    ):
        facts, (width, layers, heads) = card.facts, card.shape
        hub = f"[{card.hub}](https://huggingface.co/{card.hub})" if card.hub else "none public"
        cells = [
            f"[{card.name}]({card.name}/README.md)", facts["year"] or "", _short(facts["parameters"]), f"{width:,}", layers,
            heads, facts["objective"] or "", _short(facts["tokens"]), card.licence, "here" if card.weights else hub,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _short(value: float | None) -> str:
    """As people write it; empty where it is not known."""
    return short(value) if value else ""
