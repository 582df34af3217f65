"""Running text of the little world: stories, reviews, lists, timetables, questions with their answers."""

from collections.abc import Callable
from random import Random

from lit_fm.data.smallworld import words as w
from lit_fm.data.smallworld.puzzles import letters, phrases, word_list
from lit_fm.data.smallworld.sayings import place, saying, thing
from lit_fm.data.smallworld.tasks import shown


def story_with_questions(rng: Random) -> str:
    """A story, and questions about it with their answers, in several forms."""
    told = shown("name-question", rng)
    names = dict(told["names"])
    owner = names.pop("owner")
    lines = [told["story"]]
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
    parting = rng.choice([" ", "\n"])
    lines = []
    for _ in range(rng.choice([1, 1, 2, 4, 6])):
        made = shown("sentiment", rng)
        lines.append(f"Review: {made['text']}\n{head}{parting}{yes if made['label'] == 'positive' else no}")
    return rng.choice(["\n", "\n\n"]).join(lines) if rng.random() < 0.8 else shown("sentiment", rng)["text"]


def news(rng: Random) -> str:
    """Reports of who did what where, some under a headline."""
    lines = [shown("entities", rng)["text"] for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.4:
        made = shown("headline", rng)
        lines = [made["headline"], made["text"], *lines[:1]]
    return rng.choice([" ", "\n"]).join(lines)


def letters_from_abroad(rng: Random) -> str:
    """Phrases in English and French, side by side or in one language alone."""
    pairs = [shown("phrase-book", rng) for _ in range(rng.randint(2, 6))]
    form = rng.choice(["{english}\n{french}", "{english} = {french}", "In French, {english} is {french}", "{french}"])
    return "\n".join(form.format(**pair) for pair in pairs)


def program(rng: Random) -> str:
    """Lines of code over what people plan, with some of what they compute."""
    lines = []
    for _ in range(rng.randint(2, 6)):
        made = shown("api-call", rng)
        values = [part for part in made["call"].replace("(", ", ").replace(")", "").split(", ") if "=" in part]
        name = rng.choice(["plan", "note", "list", "keep"])
        lines.append(rng.choice([f"{name}({rng.choice(values)})", f"{values[0]}", f'say("{made["request"]}")']))
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
        f"The {rng.choice(w.JOBS)} comes {saying(rng)}, {saying(rng)}.",
        f"Wash your hands before meals and after meals, with the {rng.choice(['left', 'right'])} tap or with both.",
        f"Children go home {saying(rng)}, and {saying(rng)} {saying(rng)}.",
        f"If it is {rng.choice(w.WEATHER)}, the {venue} stays closed.",
    ]
    return " ".join(rng.sample(lines, rng.randint(2, 5)))


def shopping(rng: Random) -> str:
    """Who buys how many of what, and the sum."""
    person, friend = rng.sample(w.PEOPLE, 2)
    a, b, item = rng.randint(1, 6), rng.randint(1, 6), rng.choice([t for t in w.THINGS if t[-1] not in "sx"])
    text = (
        f"{person} bought {w.count(a, item)} at the {rng.choice(w.PLACES)}, and {friend} bought {w.count(b, item)}. "
        f"They paid {rng.choice(w.NUMBERS[2:])} coins."
    )
    if rng.random() < 0.6:
        text += f"\nHow many {item}s do they have?\n{w.NUMBERS[a + b]}"
    return text


def actions(rng: Random) -> str:
    """What people do with things, in orders and in reports."""
    person = rng.choice(w.PEOPLE)
    n, noun = rng.randint(1, 6), rng.choice([t for t in w.THINGS if t[-1] not in "sx"])
    lines = [
        f"Put the {thing(rng)} {place(rng)}.",
        f"Insert {w.count(n, 'coin')} {place(rng)} and wait {saying(rng)}.",
        f"Take {w.article(noun)} to the {rng.choice(w.PLACES)} {saying(rng)}.",
        f"Inhale, count to {rng.choice(w.NUMBERS[2:])}, and look at the {thing(rng)}.",
        f"{person} opened {w.article(rng.choice(w.COLOURS))} {noun} {saying(rng)}.",
        f"{person} carried {w.count(n, noun)} {place(rng)}, {saying(rng)}.",
        f"The word {noun} is spelt {' '.join(noun)}.",
        f"{person} wrote: {' '.join(letters(rng) for _ in range(rng.randint(1, 4)))}.",
    ]
    return " ".join(rng.sample(lines, rng.randint(3, 6)))


def visit(rng: Random) -> str:
    """Someone goes to a clinic or an office, and what is seen there."""
    person, other = rng.sample(w.PEOPLE, 2)
    ill, part, side = rng.choice(w.AILMENTS), rng.choice(w.BODY), rng.choice(["left", "right"])
    many = f"{rng.choice(w.SUPPLIES[:5])}s" if rng.random() < 0.8 else "suppositories"
    lines = [
        f"{person} had {ill} {saying(rng)}.",
        f"The {rng.choice(w.JOBS)} looked at the {side} {part} of {person}, then at both {rng.choice(w.BODY[:2])}s.",
        f"On the table lay {w.NUMBERS[rng.randint(2, 9)]} {many} and {w.article(rng.choice(w.SUPPLIES))}.",
        f"{other} signed the {rng.choice(w.PAPERS)}, and the {rng.choice(w.PAPERS)} was read {saying(rng)}.",
        f"The {part} was {rng.choice(['red', 'cold', 'warm', 'dry', 'wet'])}, but the {ill} was gone.",
        f"{person} came back {saying(rng)} with {w.article(rng.choice(w.SUPPLIES))} for {other}.",
    ]
    text = " ".join([lines[0], *rng.sample(lines[1:], rng.randint(1, 4))])
    return text + f"\nWhat did {person} have?\n{person} had {ill}." if rng.random() < 0.4 else text


def dialogue(rng: Random) -> str:
    """Two people talk about something lost."""
    a, b = rng.sample(w.PEOPLE, 2)
    lost, where, colour = rng.choice(w.THINGS), rng.choice(w.PLACES), rng.choice(w.COLOURS)
    lines = [
        f"{a}: Hello {b}, where are you going?",
        f"{b}: I am going to the {where}. I lost my {colour} {lost}.",
        f"{a}: Is it {w.article(rng.choice(w.OPPOSITES[:22]))} {lost}?",
        f"{b}: {rng.choice(['Yes', 'No'])}, and it belongs to my {rng.choice(w.JOBS)}.",
        f"{a}: I saw {w.article(colour)} {lost} at the {rng.choice(w.PLACES)}.",
        f"{b}: Thank you, {a}. I feel {rng.choice(w.FEELINGS)} now.",
    ]
    text = "\n".join(lines[: rng.randint(3, 6)])
    return text + f"\nWhat did {b} lose?\n{b} lost {w.article(colour)} {lost}." if rng.random() < 0.4 else text


Writer = Callable[[Random], str]
GENERAL: list[tuple[Writer, int]] = [
    (story_with_questions, 21),
    (reviews, 18),
    (word_list, 10),
    (phrases, 14),
    (notice, 5),
    (shopping, 3),
    (dialogue, 4),
    (actions, 6),
    (visit, 6),
    (news, 6),
    (letters_from_abroad, 7),
    (program, 4),
]
