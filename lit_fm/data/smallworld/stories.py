"""Short reviews, and stories of people with pets."""

from random import Random
from typing import NamedTuple

from lit_fm.data.smallworld import words as w


class Review(NamedTuple):
    """A review, its verdict (`positive` or `negative`), and a headline."""

    text: str
    label: str
    headline: str


def review(rng: Random) -> Review:
    """A short review of a product or of a house in town."""
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
    advice = "recommended" if label == "positive" else "stay away"
    headline = f"{thing.capitalize()} with {w.article(first)} {one}: {advice}"
    return Review(f"{opening} {middle} {rng.choice(ends[label])}", label, headline)


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
