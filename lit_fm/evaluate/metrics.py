"""Measures of what a network writes, by name: a metric is chosen in the data's config.

Each takes texts and, for each of them, all right answers. Shares are in 0..1, BLEU and chrF in 0..100.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from itertools import zip_longest

from lit_fm.evaluate.calls import calls_of
from lit_fm.nearest import did_you_mean

Texts = list[str]
References = list[list[str]]
Names = list[str] | None
_NUMBER = re.compile(r"(?:(?<![\w.])-\$?)?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)")
LIKELIHOOD = ("choice_accuracy", "choice_accuracy_normalised")
"""Measures of how likely the choices of an example are, for which nothing is written: see `likelihood`."""


def exact_match(predictions: Texts, references: References) -> float:
    """The share of texts that equal a right answer, white space at the ends aside."""
    return _share(guess.strip() in {text.strip() for text in right} for guess, right in _pairs(predictions, references))


def agreement(predictions: Sequence[str], answers: Sequence[str], classes: Iterable[str] = ()) -> dict[str, float]:
    """Accuracy and macro F1 of classes by name. F1 is averaged over `classes`: all that were guessed or right, if none."""
    import torch
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    labels = {label: i for i, label in enumerate(sorted({*predictions, *answers}))}
    if not labels:
        return {"accuracy": 0.0, "macro_f1": 0.0}
    guess, right = (torch.tensor([labels[text] for text in texts]) for texts in (predictions, answers))
    number = max(2, len(labels))
    by_class = multiclass_f1_score(guess, right, number, average="none")
    return {
        "accuracy": float(multiclass_accuracy(guess, right, number, average="micro")),
        "macro_f1": float(by_class[[labels[label] for label in classes or labels]].mean()),
    }


def _classes(predictions: Texts, references: References) -> dict[str, float]:
    """Of written classes: text that is none of them is wrong, but no class of its own."""
    guess = [text.strip() for text in predictions]
    known = [[text.strip() for text in right] for right in references]
    right = [text if text in names else names[0] for text, names in zip(guess, known, strict=True)]
    return agreement(guess, right, sorted(set(right)))


def _translation(name: str, predictions: Texts, references: References) -> dict[str, float]:
    """BLEU or chrF of all texts together, by sacrebleu (Post 2018), as it is where nothing is set."""
    import sacrebleu

    streams = list(map(list, zip_longest(*references)))  # the first right answer of each text, the second, ...
    return {name: getattr(sacrebleu, f"corpus_{name}")(predictions, streams).score}


def _words(predictions: Texts, references: References) -> dict[str, float]:
    """SQuAD's: F1 of words, and equality, both without case, punctuation and English articles; the best reference's."""
    from torchmetrics.functional.text import squad

    found = squad(
        [{"id": str(i), "prediction_text": text} for i, text in enumerate(predictions)],
        [{"id": str(i), "answers": {"text": right}} for i, right in enumerate(references)],
    )
    return {"f1": float(found["f1"]) / 100, "normalised_exact_match": float(found["exact_match"]) / 100}


def _rouge(predictions: Texts, references: References) -> dict[str, float]:
    """F1 of words in a-z and 0-9, of pairs of them, of the longest common subsequence, unstemmed; the best reference's."""
    from torchmetrics.functional.text import rouge_score

    keys = ("rouge1", "rouge2", "rougeL")  # the others need nltk
    found = rouge_score(predictions, references, accumulate="best", rouge_keys=keys)
    return {key: float(found[f"{key}_fmeasure"]) for key in keys}


def _entities(predictions: Texts, references: References) -> dict[str, float]:
    """F1 of whole entities over tags with spaces between."""
    from lit_fm.evaluate.entities import entity_f1

    return {"entity_f1": entity_f1([text.split() for text in predictions], [right[0].split() for right in references])}


def _tool_call(predictions: Texts, references: References) -> dict[str, float]:
    """The shares of texts with the right calls of tools, and with calls of the right tools; no call may be right too."""
    names: list[bool] = []
    whole: list[bool] = []
    for text, right in _pairs(predictions, references):
        made, known = calls_of(text), [calls_of(other) for other in right]
        whole.append(made is not None and made in known)
        names.append(made is not None and _tools(made) in [_tools(calls) for calls in known if calls is not None])
    return {"tool_call": _share(whole), "tool_name": _share(names)}


def _tools(calls: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in calls]


def _last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return Decimal(found[-1].replace(",", "").replace("$", "")) if found else None


def _number(predictions: Texts, references: References) -> dict[str, float]:
    """The share of texts whose last number is the last of a right answer, as in `... #### 1,250`."""
    pairs = _pairs(predictions, references)
    found = ((_last_number(text), [_last_number(other) for other in right]) for text, right in pairs)
    return {"number": _share(guess is not None and guess in right for guess, right in found)}


METRICS: dict[str, Callable[[Texts, References], dict[str, float]]] = {
    "exact_match": lambda texts, right: {"exact_match": exact_match(texts, right)},
    "accuracy": lambda texts, right: {"accuracy": _classes(texts, right)["accuracy"]},
    "macro_f1": lambda texts, right: {"macro_f1": _classes(texts, right)["macro_f1"]},
    "entity_f1": _entities,
    "f1": _words,
    "rouge": _rouge,
    "bleu": partial(_translation, "bleu"),
    "chrf": partial(_translation, "chrf"),
    "tool_call": _tool_call,
    "number": _number,
}


def check_names(names: Iterable[str]) -> None:
    """Refuse a metric that does not exist.

    Raises:
        ValueError: says which is meant, or which there are.
    """
    for name in names:
        if name not in METRICS and name not in LIKELIHOOD:
            raise ValueError(f"data.metrics: {name!r} is no metric: {did_you_mean(name, [*METRICS, *LIKELIHOOD])}")


def measure(names: Iterable[str], predictions: Texts, references: References) -> dict[str, float]:
    """The metrics of these names, over texts and the right answers to each; nothing where there are no texts.

    Raises:
        ValueError: there is no such metric, or it is one of likelihood.
    """
    names = list(names)
    check_names(names)
    if unwritten := set(names) & set(LIKELIHOOD):
        raise ValueError(f"{min(unwritten)} is not measured by text: call likelihood.choose.")
    found: dict[str, float] = {}
    for name in names if predictions else ():
        found |= METRICS[name](predictions, references)
    return found


def _pairs(predictions: Texts, references: References) -> Iterable[tuple[str, list[str]]]:
    return zip(predictions, references, strict=True)


def _share(right: Iterable[bool]) -> float:
    found = list(right)
    return sum(found) / max(1, len(found))
