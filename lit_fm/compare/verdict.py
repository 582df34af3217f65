"""The verdict: one sentence with its reason, by rule.

Of the methods that are not significantly worse than the best, the cheapest is recommended: smallest backbone, then fewest
learnable parameters, fewest shots, least time. Not being told apart is no proof of being as good, so the largest
difference that the examples leave open is said, and the verdict is called open where that is large.
"""

from typing import NamedTuple

from lit_fm.compare import statistics
from lit_fm.compare.methods import Comparison, Method, cost
from lit_fm.screen import SHARES

OPEN = 5.0
"""Points by which the recommended method may be worse than the best before the verdict is called open."""


class Verdict(NamedTuple):
    """What to use, in a sentence, and why."""

    sentence: str
    reason: str
    chosen: Method | None


def points(metric: str, value: float) -> float:
    """A difference of a metric in points of a hundred."""
    return 100 * value if metric.rpartition("/")[2] in SHARES else value


def figure(metric: str, value: float) -> str:
    """A metric as people read it: 97.0 %, or 31.4 where it is no share."""
    return f"{points(metric, value):.1f}" + ("\N{NO-BREAK SPACE}%" if metric.rpartition("/")[2] in SHARES else "")


def judge(found: Comparison) -> Verdict:
    """The verdict of a comparison."""
    if len(found.methods) < 2:
        return Verdict(
            f"{_reached(found, found.best)}, with nothing to compare it to.", "Only one method was run.", None
        )
    chosen = min(found.equal(), key=cost)
    if found.best.mean == 0:
        return Verdict(
            f"No method solves any of the {found.examples} test examples at this budget.",
            "Train for longer, or begin with a larger backbone.", None,
        )  # fmt: skip
    learnt = [m for m in found.methods if m.shots is None]
    reason = _reason(found, chosen)
    if chosen.shots is not None:
        return Verdict(_prompting(found, chosen, learnt), reason, chosen)
    before = max(
        (value for m in learnt for run in m.runs for value in [run.before.get(found.metric, 0.0)]), default=0.0
    )
    if not any(m.shots is not None for m in found.methods) and found.best.low <= before:
        sentence = (
            f"No method beats the backbone as it was ({figure(found.metric, before)} before training) at this budget"
        )
        return Verdict(f"{sentence}; the best: {_reached(found, found.best)}.", reason, None)
    return Verdict(f"{_reached(found, chosen)}, {_standing(found, chosen)}.", reason, chosen)


def _reached(found: Comparison, method: Method) -> str:
    low, high = (f"{points(found.metric, end):.1f}" for end in (method.low, method.high))
    return f"{method.label}: {figure(found.metric, method.mean)} {words(found.metric)} [{low}, {high}]"


def words(metric: str) -> str:
    """The name of a metric in words."""
    return {"bleu": "BLEU", "chrf": "chrF"}.get(metric, metric.replace("_", " ").replace("f1", "F1"))


def _prompting(found: Comparison, chosen: Method, learnt: list[Method]) -> str:
    if not learnt:
        return f"{_reached(found, chosen)}, {_standing(found, chosen)}; no method that learns was run."
    top = max(learnt, key=lambda m: m.mean)
    shown = f"the best of those that learn, {top.label}, reaches {figure(found.metric, top.mean)}"
    if chosen.shots == 0:
        return f"No method is shown to beat zero-shot at this budget. {_reached(found, chosen)}; {shown}."
    return f"Prompting is enough. {_reached(found, chosen)}; {shown}, which these examples do not tell apart from it."


def _standing(found: Comparison, chosen: Method) -> str:
    best = found.best
    if chosen.best:
        return f"the best of {len(found.methods)} methods"
    behind = points(found.metric, best.mean - chosen.mean)
    told = f"within {behind:.1f} points of the best" if round(behind, 1) else "as good as the best"
    told += f" ({best.label}, {figure(found.metric, best.mean)})"
    own, others = (m.number("learnable_parameters") for m in (chosen, best))
    return told + (f", at {share(own / others)} of its learnable parameters" if own is not None and others else "")


def share(value: float) -> str:
    """A share in percent, to two figures where it is small."""
    return f"{100 * value:.2g}\N{NO-BREAK SPACE}%" if value < 0.1 else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def _reason(found: Comparison, chosen: Method) -> str:
    equal, all_ = len(found.equal()), len(found.methods)
    sure = f"at the {share(1 - statistics.LEVEL)} level on {found.examples} test examples, corrected for all methods"
    if chosen.best and equal == 1:
        return f"Every other method is significantly worse {sure}."
    kept = f"Of the {all_ - 1} others, {equal - 1} {'is' if equal == 2 else 'are'} not told apart from the best {sure}"
    if chosen.best:
        return f"{kept}, and none of these is cheaper."
    high = points(found.metric, float(statistics.interval(found.best.draws - chosen.draws)[1]))
    behind = f"up to {max(0.0, high):.1f} points worse than {found.best.label}"
    text = f"{kept}; {chosen.label} is the cheapest. It may still be {behind}"
    return text + (
        f": the verdict stays open until more than {found.examples} examples are scored." if high > OPEN else "."
    )
