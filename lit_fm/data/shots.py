"""Solved examples before a question: which ones, in which order, and as which text: learning in context."""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from typing import Any, Literal

import numpy as np

from lit_fm.data.tfidf import TfIdf

Selection = Literal["random", "balanced", "nearest"]
Shot = tuple[int, dict]
"""Its place in the order of its seed, and the example."""


def few_shot(instruction: str, shots: Sequence[str], question: str) -> str:
    """The instruction, each shot with its answer, and the question: blank lines between them."""
    return "\n\n".join(filter(None, [instruction, *shots, question]))


class Shots:
    """Draws shots from training examples: one draw a seed, the same for all questions, as a person would write a prompt.

    So the spread over seeds is that of which examples are shown and in which order, which is large (Zhao et al. 2021, Lu et
    al. 2022); GPT-3 draws anew for each question (Brown et al. 2020, section 2.4), which averages it out. Fewer shots are
    the first of more. A question has shots of its own task (in conversations, also of its own system turn and tools), and
    none that asks the same.

    Args:
        selection: `random`; `balanced`, answers in turn; `nearest`, the examples most alike by TF-IDF, which hang on the
            question: the seed draws their order and breaks ties.

    Raises:
        ValueError: there are about as many answers as examples, which nothing could balance.
    """

    def __init__(self, examples: list[dict], selection: Selection) -> None:
        self._examples, self._selection = examples, selection
        self._asked = [asked(example) for example in examples]
        self._groups: dict[Any, list[int]] = defaultdict(list)
        for number, example in enumerate(examples):
            self._groups[_frame(example)].append(number)
        self._orders: dict[Any, list[int]] = {}
        self._places: dict[int, np.ndarray] = {}
        self._alike = TfIdf(self._asked) if selection == "nearest" else None
        answers = len({_answer(example) for example in examples})
        if selection == "balanced" and 2 * answers > len(examples):
            raise ValueError(
                f"--selection balanced: {len(examples)} training examples have {answers} answers, too many to take turns: "
                "use random or nearest."
            )

    def most(self, question: dict) -> int:
        """How many examples could be shown before a question."""
        text = asked(question)
        return sum(self._asked[number] != text for number in self._groups.get(_frame(question), ()))

    def repeated(self, question: dict) -> bool:
        """Whether a training example asks the same."""
        return asked(question) in (self._asked[number] for number in self._groups.get(_frame(question), ()))

    def __call__(self, question: dict, number: int, seed: int) -> list[Shot]:
        """So many, the first to be shown first; all that there are where these are fewer."""
        text, places = asked(question), self._place(seed)
        other = (n for n in self._order(question, text, seed) if self._asked[n] != text)
        return [(int(places[n]), self._examples[n]) for n in islice(other, number)]

    def _place(self, seed: int) -> np.ndarray:
        """Of each example in a permutation drawn by the seed."""
        if seed not in self._places:
            self._places[seed] = np.random.default_rng(seed).permutation(len(self._examples))
        return self._places[seed]

    def _order(self, question: dict, text: str, seed: int) -> list[int]:
        frame, places = _frame(question), self._place(seed)
        group = self._groups.get(frame, [])
        if self._alike:
            alike = self._alike.similarity(text)
            return sorted(group, key=lambda n: (-alike[n], places[n]))
        if (frame, seed) not in self._orders:
            drawn = sorted(group, key=lambda n: places[n])
            self._orders[frame, seed] = self._in_turn(drawn) if self._selection == "balanced" else drawn
        return self._orders[frame, seed]

    def _in_turn(self, drawn: list[int]) -> list[int]:
        """One example of each answer, then the next of each, and so on."""
        by_answer: dict[str, list[int]] = defaultdict(list)
        for number in drawn:
            by_answer[_answer(self._examples[number])].append(number)
        return [number for number in chain(*zip_longest(*by_answer.values())) if number is not None]


def asked(example: dict) -> str:
    """What an example asks, case and white space aside; of a conversation, all before the last answer."""
    turns = example["messages"] if "messages" in example else [{"content": example["prompt"]}]
    turns = turns[:-1] if turns[-1].get("role") == "assistant" else turns
    return " ".join(" ".join(str(turn.get("content") or "") for turn in turns).lower().split())


def _answer(example: dict) -> str:
    return str(example["messages"][-1].get("content") if "messages" in example else example["completion"]).strip()


def _frame(example: dict) -> Any:
    """What a question and its shots must share."""
    system, _ = parted(example.get("messages", []))
    return example.get("task"), "messages" in example, json.dumps([system, example.get("tools")], sort_keys=True)


def parted(turns: list[dict]) -> tuple[list[dict], list[dict]]:
    """A conversation's system turn, if it begins with one, and the rest."""
    head = int(bool(turns) and turns[0]["role"] == "system")
    return turns[:head], turns[head:]
