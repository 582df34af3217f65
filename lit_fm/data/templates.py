"""Text of an example from a raw row: one of several Jinja templates, drawn for each row."""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import chain, count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lit_fm.data.segments import Segments
from lit_fm.nearest import did_you_mean

NO_TEXT = "no template has text for it"
_BAR = "|||"
_PARTS = "\ud800"  # stands for a template's own bars: half a character, which no text that was read can hold
_DRAW = "draw of this row"  # no name that a template could say

Row = dict[str, Any]


@pass_context
def _choice(context: Context, items: Iterable[Any]) -> Any:
    items = list(items)
    return items[int(context[_DRAW].random() * len(items))] if items else context.environment.undefined("a choice")


def _most_frequent(items: Iterable[Any]) -> list[Any] | None:
    """Those of the items that come most often."""
    counts = Counter(items)
    return [item for item, n in counts.items() if n == max(counts.values())] or None


_SANDBOX = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, finalize=lambda value: "" if value is None else value
)
# What PromptSource adds to Jinja (bigscience-workshop/promptsource: templates.py). Whatever is random is drawn by the row.
_SANDBOX.globals["zip"] = zip
_SANDBOX.filters |= {
    "choice": _choice,
    "random": _choice,
    "most_frequent": _most_frequent,
    "highlight": lambda text: f"<span style='color: #F08080'>{text}</span>",
}
del _SANDBOX.globals["lipsum"]


class _Source(NamedTuple):
    text: str
    choices: str = ""


class Templates:
    """Templates in the manner of PromptSource; for each row one of them is drawn by seed and number of the row.

    Args:
        template: Jinja over the fields of a row, `|||` between prompt and answer; the path of a PromptSource YAML file,
            of which all templates are taken by name; or a list of such. Those not from a file are named "1", "2", ...
        train: names of templates to learn from; where none are named, all that `evaluation` does not hold out.
        evaluation: names of templates to validate and test with; where none are named, those of `train`.

    Raises:
        ValueError: no answer in a template, broken Jinja or YAML, a name that is not known, none left to learn from.
        FileNotFoundError: no such YAML file.
    """

    def __init__(
        self,
        template: str | list[str],
        train: list[str] | None = None,
        evaluation: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        self._sources = _read([template] if isinstance(template, str) else template)
        self._seed = seed
        for name, source in self._sources.items():
            _check(name, source)
        for field, names in (("train", train), ("evaluation", evaluation)):
            if unknown := [name for name in names or () if name not in self._sources]:
                raise ValueError(
                    f"templates for {field}: there is no template {unknown[0]!r}: {did_you_mean(unknown[0], self._sources)}"
                )
        held_out = evaluation or []
        self.train = train or [name for name in self._sources if name not in held_out]
        self.evaluation = evaluation or self.train
        if not self.train:
            raise ValueError("templates for evaluation: all are held out, none is left to learn from: name fewer.")

    @property
    def written(self) -> dict[str, list[str]]:
        """What all templates say, by name."""
        return {name: list(source) for name, source in self._sources.items()}

    def render(self, row: Row, number: int, split: str = "train", answered: bool = True) -> Row | str:
        """`prompt`, `completion`, `template` (its name), and where there are several, `choices` and `references`.

        Text of the row is put in as it is, never read as Jinja; bars in it part nothing. A template without text for the
        row gives way to the next drawn. What is returned is a pure function of row, seed, and number.

        Args:
            number: of the row, from 1.
            answered: off: the row may lack the answer; the completion then is empty.

        Returns:
            The fields of an example, or the reason why there is none.

        Raises:
            ValueError: a template asks for a field that the row has not, or for anything that fails.
        """
        names = self.train if split == "train" else self.evaluation
        draw = Random(f"{self._seed} {number}")
        if len(names) > 1:
            names = sorted(names, key=lambda _: draw.random())
        for name in names:
            try:
                made = _example(self._sources[name], row, draw, answered)
            except Exception as error:  # an expression in a template can raise anything
                raise ValueError(
                    f"template {name!r}, row {number}: {error}; the row has the fields {sorted(row)}."
                ) from error
            if made:
                return {**made, "template": name}
        return NO_TEXT


def _example(source: _Source, row: Row, draw: Random, answered: bool) -> Row | None:
    fields = {"answer_choices": None, **row, _DRAW: draw}
    more: Row = {}
    if source.choices:
        more["choices"] = fields["answer_choices"] = _parts(_compiled(source.choices), fields, answered=True)
    prompt, *answers = _parts(_compiled(source.text), fields, answered)
    answers = [answer for answer in answers if answer]
    if not prompt or (answered and not answers):
        return None
    if len(answers) > 1:
        more["references"] = answers
    return {"prompt": prompt, "completion": answers[0] if answers else "", **more}


def _parts(template: Template, fields: Row, answered: bool) -> list[str]:
    """What a template writes, parted at its bars. Unless answered, the prompt alone where the answer's fields miss."""
    pieces: list[str] = []
    try:
        for piece in template.generate(fields):
            pieces.append(piece)  # what was written before an error is wanted
    except UndefinedError:
        written, bar, _ = "".join(pieces).partition(_PARTS)
        if answered or not bar:
            raise
        return [written.strip()]
    return [part.strip() for part in "".join(pieces).split(_PARTS)]


@cache
def _compiled(text: str) -> Template:
    return _SANDBOX.from_string(text.replace(_BAR, _PARTS))


def _check(name: str, source: _Source) -> None:
    shown = f"template {name!r} ({source.text[:60]!r})"
    if not source.text.partition(_BAR)[2].strip():
        raise ValueError(
            f"{shown} has no answer: write the prompt, then |||, then the answer, such as "
            "'{{question}} ||| {{answer}}'."
        )
    try:
        for text in filter(None, source):
            _compiled(text)
    except TemplateError as error:
        raise ValueError(f"{shown} is not valid Jinja: {error}. Correct it.") from error


class _Loader(yaml.SafeLoader):
    """Plain YAML, and PromptSource's two tags as mappings."""

    yaml_constructors = {
        **yaml.SafeLoader.yaml_constructors,
        **dict.fromkeys(("!Template", "!TemplateMetadata"), yaml.SafeLoader.construct_yaml_map),
    }


def _read(given: list[str]) -> dict[str, _Source]:
    """Templates by name; one whose name is taken has a number behind it."""
    found: dict[str, _Source] = {}
    for number, text in enumerate(given, 1):
        from_file = _BAR not in text and text.lower().endswith((".yaml", ".yml"))
        for name, source in _read_yaml(Path(text)) if from_file else [(str(number), _Source(text))]:
            names = chain([name], (f"{name} ({i})" for i in count(2)))
            found[next(n for n in names if n not in found)] = source
    if not found:
        raise ValueError("data.template is empty: write one, such as '{{question}} ||| {{answer}}'.")
    return found


def _read_yaml(path: Path) -> list[tuple[str, _Source]]:
    if not path.is_file():
        near = did_you_mean(path.name, (file.name for file in path.parent.glob("*.y*ml")))
        raise FileNotFoundError(f"data.template: there is no file {str(path)!r}: {near}")
    try:
        entries = list(yaml.load(path.read_text(encoding="utf-8"), _Loader)["templates"].values())
        return [(str(e["name"]), _Source(e["jinja"] + "", (e.get("answer_choices") or "") + "")) for e in entries]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"data.template: {path} is no PromptSource file (`templates`, each with `name` and `jinja`): {why}"
        ) from error


def prompt_text(prompt: str) -> str:
    """A prompt as the answer follows it: on a new line, unless the prompt ends in white space."""
    return prompt + "\n" if prompt and not prompt[-1].isspace() else prompt


def pair_segments(example: dict[str, Any]) -> Segments:
    """Prompt, then the answer to learn.

    Raises:
        ValueError: the example has tags for its words in place of an answer.
    """
    if "completion" not in example:
        raise ValueError(
            f"a row has the fields {sorted(example)} and no answer to write: use lit_fm.TokenClassification "
            "(tag.yaml) for words with tags, or a data.template."
        )
    return [(prompt_text(example["prompt"]), False), (example["completion"], True)]
