"""Things, places and turns of phrase that any text may hold."""

from random import Random

from lit_fm.data.smallworld import words as w

NOUNS = (w.COLOURS, w.FOODS, w.THINGS, w.BODY, w.SUPPLIES, w.AILMENTS, w.PAPERS, w.ANIMALS, w.PLACES, w.JOBS)


def thing(rng: Random) -> str:
    """Any noun."""
    return rng.choice(rng.choice(NOUNS))


def place(rng: Random) -> str:
    """Where something is or goes."""
    what = rng.choice([rng.choice(w.BODY), rng.choice(w.PLACES), rng.choice(w.THINGS), rng.choice(w.VENUES)])
    return f"{rng.choice(['in', 'on', 'under', 'by', 'into', 'with', 'behind'])} the {what}"


def saying(rng: Random) -> str:
    """A few words of time, place or manner."""
    number = w.NUMBERS[rng.randint(2, 12)]
    return rng.choice(
        [
            place(rng),
            f"{rng.choice(['once', 'twice', 'three times', 'four times', 'five times'])} a {rng.choice(w.SPANS)}",
            f"every {rng.choice([number + ' ' + rng.choice(w.SPANS) + 's', 'other ' + rng.choice(w.SPANS)])}",
            f"every {rng.choice([*w.MOMENTS, *w.DAYS])}",
            f"{rng.choice(['before', 'after', 'with', 'without', 'at', 'for'])} {thing(rng)}",
            f"{rng.choice(['before', 'after', 'at'])} {rng.choice(['meals', 'lunch', 'bedtime', 'noon', 'work', 'dusk'])}",
            f"for {number} {rng.choice(w.SPANS)}s",
            f"as {rng.choice(['needed', 'agreed', 'promised', 'usual'])}",
        ]
    )
