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
    kind = rng.randrange(7)
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
    if kind == 5:
        return "capitals", [(item, item.upper()) for item in w.FOODS + w.THINGS]
    # A made-up code, told nowhere else: what it means can only be read off this document.
    codes = rng.sample([a + b + c for a in "bdfgkmptz" for b in "aeiou" for c in "lnrstx"], 6)
    meant = rng.sample(w.COLOURS + w.FOODS + w.THINGS, 6)
    return "code", list(zip(codes, meant, strict=True))


def word_list(rng: Random) -> str:
    """Pairs of words that stand in one relation, some of them twice."""
    name, pairs = _pairs(rng)
    # With repeats: the second time, the answer stands above.
    shown = [rng.choice(pairs) for _ in range(rng.randint(4, 10))]
    if name == "code":
        shown = pairs + shown
    form = rng.choice(["{} -> {}", "{}: {}", "{} = {}", "Word: {}\nAnswer: {}", "Q: {}\nA: {}", "{} means {}."])
    title = f"{name.capitalize()}s\n" if rng.random() < 0.5 else ""
    return title + "\n".join(form.format(a, b) for a, b in shown)


def phrases(rng: Random) -> str:
    """Several codes in a row, spelt out item by item: the skill of reading a line from left to right."""
    _, pairs = _pairs(rng)
    pairs = pairs[:12] if len(pairs) > 12 else pairs
    head = rng.choice([("In:", "Out:"), ("Short:", "Long:"), ("Code:", "Words:")])
    lines = ["\n".join(f"{a} is {b}" for a, b in pairs)] if rng.random() < 0.7 else []
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
        f"The {rng.choice(w.JOBS)} comes {rng.choice(['once', 'twice', 'three times', 'four times'])} "
        f"{w.article(rng.choice(['day', 'week', 'month']))}, {rng.choice(['before', 'after'])} lunch.",
        f"Wash your hands before meals and after meals, with the {rng.choice(['left', 'right'])} tap or with both.",
        f"Children go home at {rng.choice(['noon', 'bedtime', 'six', 'dusk'])} as needed, every other "
        f"{rng.choice(w.DAYS)} for {w.count(rng.randint(2, 10), rng.choice(['day', 'week', 'hour']))}.",
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
    (story_with_questions, 30),
    (reviews, 22),
    (word_list, 12),
    (phrases, 14),
    (notice, 10),
    (shopping, 5),
    (dialogue, 7),
]
CORPORA: dict[str, list[tuple[Writer, int]]] = {"general": GENERAL}
