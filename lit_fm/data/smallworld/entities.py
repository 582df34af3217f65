"""Sentences in which people, places and organisations are named, each word with its tag (IOB2)."""

from random import Random

from lit_fm.data.smallworld import words as w

Tagged = list[tuple[str, str]]
_FRAMES = [
    "PER works for ORG in LOC .",
    "On DAY PER travelled from LOC to LOC .",
    "ORG opened a new office in LOC , PER said .",
    "PER met PER at the PLACE in LOC .",
    "The JOB of ORG , PER , lives near LOC .",
    "ORG and ORG signed a contract on DAY .",
    "PER bought a PRODUCT from ORG .",
    "It was WEATHER in LOC when PER left ORG .",
    '" I feel FEELING , " said PER of ORG .',
    "Nobody in LOC knows PER .",
    "LOC is a quiet town , but ORG wants to build a VENUE there .",
    "The PLACE was closed on DAY .",
]
_PLAIN = {"DAY": w.DAYS, "PLACE": w.PLACES, "JOB": w.JOBS, "PRODUCT": w.PRODUCTS, "WEATHER": w.WEATHER}
_PLAIN |= {"FEELING": w.FEELINGS, "VENUE": w.VENUES}


def _name(kind: str, rng: Random) -> str:
    town, family = rng.choice(w.TOWNS), rng.choice(w.SURNAMES)
    if kind == "PER":
        first = rng.choice(w.PEOPLE)
        return rng.choice([first, f"{first} {family}", f"{first} {family}", f"Dr {family}"])
    if kind == "LOC":
        return rng.choice([town, town, town, f"Lake {town}", f"{town} Bridge"])
    house = rng.choice(w.HOUSES)
    return rng.choice([f"{town} {house}", f"{town} {house}", f"{family} & {rng.choice(w.SURNAMES)}", f"{family} Ltd"])


def tagged(rng: Random) -> Tagged:
    """One sentence or two."""
    words: Tagged = []
    for frame in rng.sample(_FRAMES, rng.choice([1, 1, 2])):
        for slot in frame.split():
            if slot in ("PER", "LOC", "ORG"):
                first, *more = _name(slot, rng).split()
                words += [(first, f"B-{slot}"), *((word, f"I-{slot}") for word in more)]
            else:
                words.append((rng.choice(_PLAIN[slot]) if slot in _PLAIN else slot, "O"))
    return words


def named(words: Tagged) -> list[tuple[str, str]]:
    """The names in a tagged text and what each is, in order."""
    found: list[tuple[str, str]] = []
    for word, tag in words:
        if tag.startswith("B-"):
            found.append((word, tag[2:]))
        elif tag.startswith("I-"):
            found[-1] = (f"{found[-1][0]} {word}", tag[2:])
    return found


def written(words: Tagged) -> str:
    """The text as people write it: no space before a point or a comma, none inside quotes."""
    text, opened = "", False
    for word, _ in words:
        if word == '"':
            text += '"' if opened else ' "'
            opened = not opened
        else:
            text += word if word in ".," or text.endswith(' "') or not text else f" {word}"
    return text.strip()
