"""Learning in context: the very questions that a fit is scored with, with solved training examples before them."""

import time
from typing import Any, NamedTuple

from lit_fm.data.shots import Shot, Shots, few_shot, parted
from lit_fm.evaluate.judge import MORE, Chosen, judge
from lit_fm.screen import console

BLANK_LINE = "\n\n"


def in_context(objective: Any, shots: list[Shot], question: dict) -> dict:
    """A question behind its shots, in the order of their places. Each looks as in training, but for the end token.

    Shots of a conversation are turns before it, behind its system turn; in a cloze, their blanks are filled.
    """
    shown = [example for _, example in sorted(shots, key=lambda shot: shot[0])]
    if "messages" in question:
        system, turns = parted(question["messages"])
        return {**question, "messages": [*system, *(t for one in shown for t in parted(one["messages"])[1]), *turns]}
    texts = ["".join(text for text, _ in objective.segments(one)).rstrip() for one in shown]
    return {**question, "prompt": few_shot("", texts, question["prompt"])}


class Prompts(NamedTuple):
    """Questions behind as many shots as fit, how many these are, and their lengths in tokens."""

    examples: list[dict]
    used: list[int]
    tokens: list[int]


def fitted(objective: Any, questions: list[dict], shots: list[list[Shot]], room: int) -> Prompts:
    """Each question behind all its shots, or as many of the first as fit into `room` tokens with it."""
    used, tokens = [len(of) for of in shots], [0] * len(questions)
    examples = list(questions)
    open_ = list(range(len(questions)))
    while open_:
        for i in open_:
            examples[i] = in_context(objective, shots[i][: used[i]], questions[i])
        for i, ids in zip(open_, objective.prompt_ids([examples[i] for i in open_]), strict=True):
            tokens[i] = len(ids)
        open_ = [i for i in open_ if tokens[i] > room and used[i]]
        for i in open_:
            used[i] -= 1
    return Prompts(examples, used, tokens)


class InContext:
    """Measures a network's answers behind shots, a number of shots and a seed at a time.

    An answer ends at the first blank line, for any number of shots (for none too, so that points of a curve compare):
    behind it, a network that goes on writes the next shot. Where a right answer has a blank line, or ends with a turn,
    nothing is cut.

    Args:
        chosen: the questions, as a fit scores them.
        shots: of the training split.
    """

    def __init__(self, objective: Any, data: Any, chosen: Chosen, shots: Shots) -> None:
        self.objective, self.data, self.chosen, self.shots = objective, data, chosen, shots
        references = [text for example in chosen.examples for text in objective.answer_references(example)]
        plain = not any(BLANK_LINE in text.strip() for text in references)
        turns = any("messages" in example for example in chosen.examples)
        self.until = BLANK_LINE if plain and not turns and objective.writes else ""
        if not plain:
            console.print("Some right answers have a blank line: what is written behind one counts.")

    @property
    def room(self) -> int:
        """Tokens that a prompt may have: the window, without an answer where the same network reads and writes it."""
        objective = self.objective
        if not objective.writes or objective.network.config.is_encoder_decoder:
            return objective.limit
        choices = {str(choice) for example in self.chosen.examples for choice in example.get("choices") or ()}
        ids = objective.tokenizer(list(choices) or [""], add_special_tokens=False)["input_ids"]
        return objective.limit - max(self.chosen.longest + MORE, 1 + max(map(len, ids)))

    def prompts(self, number: int, seed: int) -> Prompts:
        """The questions behind `number` shots of a seed, or as many as fit."""
        questions = self.chosen.examples
        shots = [self.shots(question, number, seed) for question in questions]
        return fitted(self.objective, questions, shots, self.room)

    def measure(self, number: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measures, and each scored example. No measures where no question has room for so many shots."""
        started, made = time.perf_counter(), self.prompts(number, seed)
        fewer = sum(used < number for used in made.used)
        about: dict[str, Any] = {
            "questions": len(made.used),
            "fewer_shots": fewer,
            "mean_shots": sum(made.used) / len(made.used),
            "prompt_tokens": sum(made.tokens) / len(made.tokens),
            "too_long": sum(tokens > self.room for tokens in made.tokens),
        }
        if fewer == len(made.used):
            return {**about, "cut": 0, "seconds": 0.0}, []
        found, rows = judge(
            self.objective, self.data, self.chosen._replace(examples=made.examples), console.print, until=self.until
        )
        about["cut"] = sum(row.pop("cut", False) for row in rows)
        about["seconds"] = round(time.perf_counter() - started, 2)
        return about | found, [{"shots": number, "seed": seed, **row} for row in rows]
