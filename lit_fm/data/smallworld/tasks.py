"""The tasks of the little world. Each makes one row from a random generator; its answer is exact by construction."""

from random import Random
from zlib import crc32

from lit_fm.data.smallworld import words as w


def split_of(text: str) -> str:
    """The one split that a text belongs to: a tenth is held out, by content."""
    return {0: "test", 1: "validation"}.get(crc32(text.encode()) % 20, "train")


def content(row: dict) -> str:
    """What a row is about: its prompt without the last line, which asks the question."""
    return row["prompt"].rpartition("\n")[0]


def review(rng: Random) -> tuple[str, str]:
    """A short review and whether it is `positive` or `negative`."""
    label = rng.choice(["positive", "negative"])
    kind = rng.choice(["product", "venue"])
    thing = rng.choice(w.PRODUCTS if kind == "product" else w.VENUES)
    like, dislike = (w.GOOD, w.BAD) if label == "positive" else (w.BAD, w.GOOD)
    one, two, other = rng.sample(w.PARTS[kind], 3)
    first, second = rng.sample(like, 2)
    opening = rng.choice(
        [
            f"{'I bought this' if kind == 'product' else 'We went to this'} {thing} last {rng.choice(w.DAYS)}.",
            f"My {rng.choice(['sister', 'brother', 'friend', 'mother'])} told me about the {thing}.",
            f"A {thing} in {rng.choice(w.TOWNS)}." if kind == "venue" else f"A {rng.choice(w.COLOURS)} {thing}.",
        ]
    )
    middle = rng.choice(
        [
            f"The {one} is {first} and the {two} is {second}.",
            f"The {one} was {first}, the {two} too.",
            f"What {w.article(first)} {one}!",
            f"The {other} may be {rng.choice(dislike)}, but the {one} is {first} and the {two} is simply {second}.",
        ]
    )
    ends = {
        "positive": ["I would buy it again.", "We will come back.", "I can only recommend it.", "Worth every penny."],
        "negative": ["Never again.", "I want my money back.", "Do not waste your time.", "We left early."],
    }
    return f"{opening} {middle} {rng.choice(ends[label])}", label


def story(rng: Random) -> tuple[str, dict[str, str]]:
    """A few sentences about a person with pets, and what each pet (and the friend) is called."""
    owner, friend = rng.sample(w.PEOPLE, 2)
    pets = rng.sample(w.ANIMALS, rng.choice([1, 2, 2, 3]))
    names = rng.sample([n for n in w.PET_NAMES if n not in (owner, friend)], len(pets))
    place, town, day = rng.choice(w.PLACES), rng.choice(w.TOWNS), rng.choice(w.DAYS)
    lines = [f"{owner} is a {rng.choice(w.JOBS)} in {town}."]
    lines += [
        rng.choice(
            [
                f"{owner} has {w.article(animal)} called {name}.",
                f"The {animal} of {owner} is named {name}.",
                f"{name} is a {rng.choice(w.COLOURS)} {animal} and lives with {owner}.",
            ]
        )
        for animal, name in zip(pets, names, strict=True)
    ]
    weather, feeling = rng.choice(w.WEATHER), rng.choice(w.FEELINGS)
    lines += rng.sample(
        [
            f"On {day} it was {weather} and {owner} went to the {place} with {rng.choice(names)}.",
            f"At the {place} {owner} met {friend}, who was {feeling}.",
            f"They ate {rng.choice(w.FOODS)} and talked about {w.article(rng.choice(w.THINGS))}.",
            f"{rng.choice(names)} ran after {w.article(rng.choice(w.COLOURS))} {rng.choice(w.THINGS)}.",
            f"In the {rng.choice(w.MOMENTS)} {friend} gave {rng.choice(names)} some {rng.choice(w.FOODS)}.",
        ],
        rng.choice([1, 2, 3]),
    )
    return " ".join(lines), {**dict(zip(pets, names, strict=True)), "owner": owner}


# Abbreviations of prescriptions, and what they say. Each form: verb, one, many, routes.
_BY_MOUTH = {"po": "by mouth", "sl": "under the tongue"}
_EYE_EAR = {
    "od": "in the right eye",
    "os": "in the left eye",
    "ou": "in both eyes",
    "ad": "in the right ear",
    "as": "in the left ear",
    "au": "in both ears",
}
_FORMS = {
    "tab": ("Take", "tablet", _BY_MOUTH),
    "cap": ("Take", "capsule", _BY_MOUTH),
    "tsp": ("Take", "teaspoon", {"po": "by mouth"}),
    "gtt": ("Put", "drop", _EYE_EAR),
    "puff": ("Inhale", "puff", {"inh": "with the inhaler"}),
    "supp": ("Insert", "suppository", {"pr": "into the rectum"}),
}
_OFTEN = {
    "qd": "once a day",
    "bid": "twice a day",
    "tid": "three times a day",
    "qid": "four times a day",
    "qod": "every other day",
    "qwk": "once a week",
    "q4h": "every four hours",
    "q6h": "every six hours",
    "q8h": "every eight hours",
    "q12h": "every twelve hours",
    "qam": "every morning",
    "qpm": "every evening",
}
_WHEN = {
    "ac": "before meals",
    "pc": "after meals",
    "hs": "at bedtime",
    "c food": "with food",
    "pc & hs": "after meals and at bedtime",
    "ac & hs": "before meals and at bedtime",
}
ABBREVIATIONS = {*_FORMS, *_EYE_EAR, *_BY_MOUTH, *_OFTEN, "inh", "pr", "prn", "ac", "pc", "hs", "c", "x", "d"}
_REASONS = "pain fever cough itching nausea headache".split()


def shorthand(rng: Random) -> tuple[str, str]:
    """A prescription in medical shorthand, and in plain English."""
    form = rng.choice(list(_FORMS))
    verb, noun, routes = _FORMS[form]
    n, route, often = rng.choice([1, 1, 2, 2, 3, 4]), rng.choice(list(routes)), rng.choice(list(_OFTEN))
    plural = "suppositories" if noun == "suppository" else None
    short = [str(n), form, route, often]
    plain = [f"{verb} {w.count(n, noun, plural)} {routes[route]} {_OFTEN[often]}"]
    if verb == "Take" and rng.random() < 0.6:
        when = rng.choice(list(_WHEN))
        short, plain = [*short, when], [*plain, _WHEN[when]]
    if rng.random() < 0.3:
        reason = rng.choice(_REASONS)
        short, plain = [*short, f"prn {reason}"], [*plain, f"as needed for {reason}"]
    if rng.random() < 0.3:
        days = rng.randint(2, 10)
        short, plain = [*short, f"x {days} d"], [*plain, f"for {w.count(days, 'day')}"]
    return " ".join(short), ", ".join(plain) + "."


def sentiment_row(rng: Random) -> dict:
    """Is a review positive or negative?"""
    text, label = review(rng)
    return {"prompt": f"Review: {text}\nSentiment:", "completion": label, "choices": ["negative", "positive"]}


def name_question_row(rng: Random) -> dict:
    """What is a pet in a story called?"""
    text, names = story(rng)
    animal = rng.choice([who for who in names if who != "owner"])
    return {"prompt": f"{text}\nWhat is the name of the {animal}?", "completion": names[animal]}


def medical_shorthand_row(rng: Random) -> dict:
    """What does a prescription say?"""
    short, plain = shorthand(rng)
    return {"prompt": f"Prescription: {short}\nPlain English:", "completion": plain}


TASKS = {
    "sentiment": sentiment_row,
    "name-question": name_question_row,
    "medical-shorthand": medical_shorthand_row,
}
