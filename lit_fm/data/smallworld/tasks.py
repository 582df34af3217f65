"""The tasks of the little world: each row is drawn from a random generator, its answer exact by construction."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from zlib import crc32

from lit_fm.data.smallworld.calls import call
from lit_fm.data.smallworld.entities import named, tagged, written
from lit_fm.data.smallworld.phrasebook import phrase
from lit_fm.data.smallworld.prescriptions import shorthand
from lit_fm.data.smallworld.stories import review, story


def split_of(text: str) -> str:
    """The one split that a text belongs to: a tenth is held out, by content."""
    return {0: "test", 1: "validation"}.get(crc32(text.encode()) % 20, "train")


@dataclass(frozen=True)
class Task:
    """What is asked, in words and in templates, and how rows of it are drawn.

    Args:
        definition: the task in a sentence, as one person would give it to another.
        templates: `prompt ||| answer` over the fields of a row, in braces; the first one is used where none is chosen.
        draw: the fields of one row.
        content: what a row is about, as a template: no two splits share it.
        metric: what its answers are measured by.
        choices: the possible answers, where they are few.
    """

    definition: str
    templates: tuple[str, ...]
    draw: Callable[[Random], dict]
    content: str
    metric: str = "exact_match"
    choices: tuple[str, ...] = ()

    def row(self, fields: dict, template: int) -> dict:
        """An instruction row, with the fields themselves beside it where they are tags of words."""
        prompt, answer = self.templates[template].format(**fields).split(" ||| ")
        row: dict = {"prompt": prompt, "completion": answer}
        if self.choices:
            row["choices"] = list(self.choices)
        return {**row, **{name: fields[name] for name in ("tokens", "tags") if name in fields}}


def _reviewed(rng: Random) -> dict:
    made = review(rng)
    return {"text": made.text, "label": made.label, "headline": made.headline}


def _told(rng: Random) -> dict:
    text, names = story(rng)
    animal = rng.choice([who for who in names if who != "owner"])
    return {"story": text, "animal": animal, "name": names[animal], "names": names}


def _prescribed(rng: Random) -> dict:
    short, plain = shorthand(rng)
    return {"short": short, "plain": plain}


def _requested(rng: Random) -> dict:
    request, made = call(rng)
    return {"request": request, "call": made}


def _translated(rng: Random) -> dict:
    english, french = phrase(rng)
    return {"english": english, "french": french}


def _named(rng: Random) -> dict:
    words = tagged(rng)
    kinds = {"PER": "person", "LOC": "place", "ORG": "organisation"}
    names = ", ".join(f"{name} ({kinds[kind]})" for name, kind in named(words)) or "none"
    tokens, tags = zip(*words, strict=True)
    return {"text": written(words), "names": names, "tokens": list(tokens), "tags": list(tags)}


TASKS = {
    "sentiment": Task(
        "Say whether a review is positive or negative.",
        ("Review: {text}\nSentiment: ||| {label}", "{text}\nIs this review positive or negative? ||| {label}"),
        _reviewed,
        "Review: {text}",
        "accuracy",
        ("negative", "positive"),
    ),
    "headline": Task(
        "Write a headline for a review: the thing, what is said of it most firmly, and the advice.",
        ("Review: {text}\nHeadline: ||| {headline}", "{text}\nGive this review a headline. ||| {headline}"),
        _reviewed,
        "Review: {text}",
    ),
    "name-question": Task(
        "Answer a question about a story with a name.",
        (
            "{story}\nWhat is the name of the {animal}? ||| {name}",
            "Read: {story}\nThe {animal} is called: ||| {name}",
        ),
        _told,
        "{story}",
    ),
    "medical-shorthand": Task(
        "Write a prescription in plain English.",
        (
            "Prescription: {short}\nPlain English: ||| {plain}",
            "{short}\nWhat does this prescription say? ||| {plain}",
        ),
        _prescribed,
        "Prescription: {short}",
    ),
    "api-call": Task(
        "Turn a request into a call.",
        ("Request: {request}\nCall: ||| {call}", "{request}\nWrite this as a function call. ||| {call}"),
        _requested,
        "{request}",
    ),
    "phrase-book": Task(
        "Translate a phrase from English into French.",
        ("English: {english}\nFrench: ||| {french}", "{english}\nHow do you say this in French? ||| {french}"),
        _translated,
        "{english}",
    ),
    "entities": Task(
        "Name the people, places and organisations in a text, in order.",
        ("Text: {text}\nNames: ||| {names}", "{text}\nWho and what is named here? ||| {names}"),
        _named,
        "{text}",
        "entity_f1",
    ),
}


def shown(name: str, rng: Random) -> dict:
    """The fields of a row that its task does not hold out: running text may show it."""
    task = TASKS[name]
    while True:
        fields = task.draw(rng)
        if split_of(task.content.format(**fields)) == "train":
            return fields
