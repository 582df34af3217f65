"""Prescriptions in medical shorthand, and what they say."""

from random import Random

from lit_fm.data.smallworld import words as w

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
