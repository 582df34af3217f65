"""Lists of pairs and made-up codes: what stands for what can be read off the document."""

from random import Random

from lit_fm.data.smallworld import words as w
from lit_fm.data.smallworld.prescriptions import ABBREVIATIONS
from lit_fm.data.smallworld.sayings import saying, thing


def _pairs(rng: Random) -> tuple[str, list[tuple[str, str]]]:
    """A relation between words, by a name that may be shown, and pairs that stand in it."""
    opposites = list(zip(w.OPPOSITES[::2], w.OPPOSITES[1::2], strict=True))
    kind = rng.randrange(6)
    if kind == 0:
        return "opposite", [*opposites, *((b, a) for a, b in opposites)]
    if kind == 1:
        return "number", [(str(i), word) for i, word in enumerate(w.NUMBERS)]
    if kind == 2:
        return "plural", [(noun, noun + "s") for noun in w.THINGS if noun[-1] not in "sx"]
    if kind == 3:
        return "kind", [(item, name) for name, items in w.KINDS.items() for item in items]
    if kind == 4:
        return "next day", [(day, w.DAYS[(i + 1) % 7]) for i, day in enumerate(w.DAYS)]
    return "capital", [(item, item.upper()) for item in w.FOODS + w.THINGS]


def _codes(rng: Random) -> list[tuple[str, str]]:
    """Made-up words, told nowhere else: what they mean can only be read off this document."""
    meant = {thing(rng) if rng.random() < 0.4 else saying(rng) for _ in range(rng.randint(3, 6))}
    codes = rng.sample(sorted({letters(rng) for _ in range(12)}), len(meant))
    return list(zip(codes, rng.sample(sorted(meant), len(meant)), strict=True))


def letters(rng: Random) -> str:
    """A word that means nothing: all letters and digits stay in use. Never one of the medical shorthand."""
    while True:
        if rng.random() < 0.5:
            made = rng.choice("bdfgkmptz") + rng.choice("aeiou") + rng.choice("lnrstx")
        else:
            made = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 4)))
            made += rng.choice(["", "", "", str(rng.randint(0, 12))])
        if made not in ABBREVIATIONS:
            return made


def word_list(rng: Random) -> str:
    """Pairs of words that stand in one relation, some of them twice."""
    name, pairs = ("code", _codes(rng)) if rng.random() < 0.3 else _pairs(rng)
    # With repeats: the second time, the answer stands above.
    shown = [rng.choice(pairs) for _ in range(rng.randint(4, 10))]
    if name == "code":
        shown = pairs + shown
    form = rng.choice(["{} -> {}", "{}: {}", "{} = {}", "Word: {}\nAnswer: {}", "Q: {}\nA: {}", "{} means {}."])
    title = f"{name.capitalize()}s\n" if rng.random() < 0.5 else ""
    return title + "\n".join(form.format(a, b) for a, b in shown)


def phrases(rng: Random) -> str:
    """Several codes in a row, spelt out item by item: the skill of reading a line from left to right."""
    coded = rng.random() < 0.7
    pairs = _codes(rng) if coded else _pairs(rng)[1]
    pairs = rng.sample(pairs, min(len(pairs), 12))
    head = rng.choice([("In:", "Out:"), ("Short:", "Long:"), ("Code:", "Words:"), ("From:", "To:")])
    lines = ["\n".join(f"{a} is {b}" for a, b in pairs)] if coded or rng.random() < 0.5 else []
    for _ in range(rng.randint(2, 5)):
        picked = [rng.choice(pairs) for _ in range(rng.randint(2, 5))]
        lines.append(f"{head[0]} {' '.join(a for a, _ in picked)}\n{head[1]} {', '.join(b for _, b in picked)}.")
    return "\n".join(lines)
