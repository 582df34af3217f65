"""Running text of the little world: stories, reviews, lists, timetables, questions with their answers."""

from collections.abc import Callable
from random import Random

from lit_fm.data.smallworld import tasks
from lit_fm.data.smallworld import words as w


def review(rng: Random) -> tuple[str, str]:
    """A review that the sentiment task does not hold out."""
    while True:
        text, label = tasks.review(rng)
        if tasks.split_of(f"Review: {text}") == "train":
            return text, label


def story(rng: Random) -> tuple[str, dict[str, str]]:
    """A story that the name question does not hold out."""
    while True:
        text, names = tasks.story(rng)
        if tasks.split_of(text) == "train":
            return text, names


def story_with_questions(rng: Random) -> str:
    """A story, and questions about it with their answers, in several forms."""
    text, names = story(rng)
    owner = names.pop("owner")
    lines = [text]
    for animal in rng.sample(list(names), rng.randint(0, len(names))):
        question, answer = rng.choice(
            [
                (f"What is the name of the {animal}?", names[animal]),
                (f"Who is {names[animal]}?", f"{names[animal]} is the {animal} of {owner}."),
                (f"Which animal is {names[animal]}?", f"The {animal}."),
                (f"Who owns the {animal}?", f"{owner}."),
            ]
        )
        lines.append(rng.choice([f"{question}\n{answer}", f"Q: {question}\nA: {answer}"]))
    return "\n".join(lines)


def reviews(rng: Random) -> str:
    """Some reviews, each with its verdict in the words of this document: the reader must infer the scheme."""
    head, yes, no = rng.choice(
        [
            ("Sentiment:", "positive", "negative"),
            ("Sentiment:", "positive", "negative"),
            ("Verdict:", "good", "bad"),
            ("Would they come back?", "yes", "no"),
            ("Stars:", "five", "one"),
            ("Mood:", "happy", "angry"),
        ]
    )
    lines = []
    for _ in range(rng.choice([1, 1, 2, 4, 6])):
        text, label = review(rng)
        lines.append(f"Review: {text}\n{head} {yes if label == 'positive' else no}")
    return rng.choice(["\n", "\n\n"]).join(lines) if rng.random() < 0.8 else review(rng)[0]


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
    meant = {_thing(rng) if rng.random() < 0.4 else _saying(rng) for _ in range(rng.randint(3, 6))}
    codes = rng.sample(sorted({_letters(rng) for _ in range(12)}), len(meant))
    return list(zip(codes, rng.sample(sorted(meant), len(meant)), strict=True))


def _letters(rng: Random) -> str:
    """A word that means nothing: all letters and digits stay in use. Never one of the medical shorthand."""
    while True:
        if rng.random() < 0.5:
            made = rng.choice("bdfgkmptz") + rng.choice("aeiou") + rng.choice("lnrstx")
        else:
            made = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 4)))
            made += rng.choice(["", "", "", str(rng.randint(0, 12))])
        if made not in tasks.ABBREVIATIONS:
            return made


NOUNS = (w.COLOURS, w.FOODS, w.THINGS, w.BODY, w.SUPPLIES, w.AILMENTS, w.PAPERS, w.ANIMALS, w.PLACES, w.JOBS)


def _thing(rng: Random) -> str:
    return rng.choice(rng.choice(NOUNS))


def _place(rng: Random) -> str:
    """Where something is or goes."""
    what = rng.choice([rng.choice(w.BODY), rng.choice(w.PLACES), rng.choice(w.THINGS), rng.choice(w.VENUES)])
    return f"{rng.choice(['in', 'on', 'under', 'by', 'into', 'with', 'behind'])} the {what}"


def _saying(rng: Random) -> str:
    """A few words of time, place or manner."""
    number = w.NUMBERS[rng.randint(2, 12)]
    return rng.choice(
        [
            _place(rng),
            f"{rng.choice(['once', 'twice', 'three times', 'four times', 'five times'])} a {rng.choice(w.SPANS)}",
            f"every {rng.choice([number + ' ' + rng.choice(w.SPANS) + 's', 'other ' + rng.choice(w.SPANS)])}",
            f"every {rng.choice([*w.MOMENTS, *w.DAYS])}",
            f"{rng.choice(['before', 'after', 'with', 'without', 'at', 'for'])} {_thing(rng)}",
            f"{rng.choice(['before', 'after', 'at'])} {rng.choice(['meals', 'lunch', 'bedtime', 'noon', 'work', 'dusk'])}",
            f"for {number} {rng.choice(w.SPANS)}s",
            f"as {rng.choice(['needed', 'agreed', 'promised', 'usual'])}",
        ]
    )


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


def notice(rng: Random) -> str:
    """Opening hours and rules of a house in town: numbers, days, times, conditions."""
    venue, town = rng.choice(w.VENUES), rng.choice(w.TOWNS)
    opens, closes = rng.randint(1, 6), rng.randint(7, 12)
    days = rng.sample(w.DAYS, rng.randint(1, 3))
    lines = [
        f"The {venue} in {town} is open on {w.listed(days)} from {w.NUMBERS[opens]} to {w.NUMBERS[closes]} o'clock.",
        f"{w.count(rng.randint(1, 4), 'visitor').capitalize()} may enter every {w.count(rng.randint(2, 12), 'minute')}.",
        f"Please leave your {rng.choice(w.THINGS)} and your {rng.choice(w.THINGS)} at the entrance.",
        f"The {rng.choice(w.JOBS)} comes {_saying(rng)}, {_saying(rng)}.",
        f"Wash your hands before meals and after meals, with the {rng.choice(['left', 'right'])} tap or with both.",
        f"Children go home {_saying(rng)}, and {_saying(rng)} {_saying(rng)}.",
        f"If it is {rng.choice(w.WEATHER)}, the {venue} stays closed.",
    ]
    return " ".join(rng.sample(lines, rng.randint(2, 5)))


def shopping(rng: Random) -> str:
    """Who buys how many of what, and the sum."""
    person, friend = rng.sample(w.PEOPLE, 2)
    a, b, thing = rng.randint(1, 6), rng.randint(1, 6), rng.choice([t for t in w.THINGS if t[-1] not in "sx"])
    text = (
        f"{person} bought {w.count(a, thing)} at the {rng.choice(w.PLACES)}, and {friend} bought {w.count(b, thing)}. "
        f"They paid {rng.choice(w.NUMBERS[2:])} coins."
    )
    if rng.random() < 0.6:
        text += f"\nHow many {thing}s do they have?\n{w.NUMBERS[a + b]}"
    return text


def actions(rng: Random) -> str:
    """What people do with things, in orders and in reports."""
    person = rng.choice(w.PEOPLE)
    n, noun = rng.randint(1, 6), rng.choice([t for t in w.THINGS if t[-1] not in "sx"])
    lines = [
        f"Put the {_thing(rng)} {_place(rng)}.",
        f"Insert {w.count(n, 'coin')} {_place(rng)} and wait {_saying(rng)}.",
        f"Take {w.article(noun)} to the {rng.choice(w.PLACES)} {_saying(rng)}.",
        f"Inhale, count to {rng.choice(w.NUMBERS[2:])}, and look at the {_thing(rng)}.",
        f"{person} opened {w.article(rng.choice(w.COLOURS))} {noun} {_saying(rng)}.",
        f"{person} carried {w.count(n, noun)} {_place(rng)}, {_saying(rng)}.",
        f"The word {noun} is spelt {' '.join(noun)}.",
        f"{person} wrote: {' '.join(_letters(rng) for _ in range(rng.randint(1, 4)))}.",
    ]
    return " ".join(rng.sample(lines, rng.randint(3, 6)))


def visit(rng: Random) -> str:
    """Someone goes to a clinic or an office, and what is seen there."""
    person, other = rng.sample(w.PEOPLE, 2)
    ill, part, side = rng.choice(w.AILMENTS), rng.choice(w.BODY), rng.choice(["left", "right"])
    many = f"{rng.choice(w.SUPPLIES[:5])}s" if rng.random() < 0.8 else "suppositories"
    lines = [
        f"{person} had {ill} {_saying(rng)}.",
        f"The {rng.choice(w.JOBS)} looked at the {side} {part} of {person}, then at both {rng.choice(w.BODY[:2])}s.",
        f"On the table lay {w.NUMBERS[rng.randint(2, 9)]} {many} and {w.article(rng.choice(w.SUPPLIES))}.",
        f"{other} signed the {rng.choice(w.PAPERS)}, and the {rng.choice(w.PAPERS)} was read {_saying(rng)}.",
        f"The {part} was {rng.choice(['red', 'cold', 'warm', 'dry', 'wet'])}, but the {ill} was gone.",
        f"{person} came back {_saying(rng)} with {w.article(rng.choice(w.SUPPLIES))} for {other}.",
    ]
    text = " ".join([lines[0], *rng.sample(lines[1:], rng.randint(1, 4))])
    return text + f"\nWhat did {person} have?\n{person} had {ill}." if rng.random() < 0.4 else text


def dialogue(rng: Random) -> str:
    """Two people talk about something lost."""
    a, b = rng.sample(w.PEOPLE, 2)
    thing, place, colour = rng.choice(w.THINGS), rng.choice(w.PLACES), rng.choice(w.COLOURS)
    lines = [
        f"{a}: Hello {b}, where are you going?",
        f"{b}: I am going to the {place}. I lost my {colour} {thing}.",
        f"{a}: Is it {w.article(rng.choice(w.OPPOSITES[:22]))} {thing}?",
        f"{b}: {rng.choice(['Yes', 'No'])}, and it belongs to my {rng.choice(w.JOBS)}.",
        f"{a}: I saw {w.article(colour)} {thing} at the {rng.choice(w.PLACES)}.",
        f"{b}: Thank you, {a}. I feel {rng.choice(w.FEELINGS)} now.",
    ]
    text = "\n".join(lines[: rng.randint(3, 6)])
    return text + f"\nWhat did {b} lose?\n{b} lost {w.article(colour)} {thing}." if rng.random() < 0.4 else text


Writer = Callable[[Random], str]
GENERAL: list[tuple[Writer, int]] = [
    (story_with_questions, 25),
    (reviews, 20),
    (word_list, 10),
    (phrases, 16),
    (notice, 6),
    (shopping, 4),
    (dialogue, 5),
    (actions, 7),
    (visit, 7),
]
CORPORA: dict[str, list[tuple[Writer, int]]] = {"general": GENERAL}
