"""Requests in plain words, and the call of a programming interface that carries them out."""

from random import Random

from lit_fm.data.smallworld import words as w


def _time(rng: Random) -> tuple[str, str]:
    """A time of day as people say it, and in 24 hours."""
    hour, minute, half = rng.randint(1, 12), rng.choice([0, 0, 0, 15, 30, 45]), rng.choice(["am", "pm"])
    said = f"{hour} {half}" if minute == 0 else f"{hour}:{minute:02d} {half}"
    return said, f"{hour % 12 + 12 * (half == 'pm'):02d}:{minute:02d}"


def call(rng: Random) -> tuple[str, str]:
    """A request, and the call."""
    person, day, (said, time) = rng.choice(w.PEOPLE), rng.choice(w.DAYS), _time(rng)
    kind = rng.randrange(5)
    if kind == 0:
        task = rng.choice(w.ERRANDS)
        forms = ["remind {p} at {t} to {x}", "please remind {p} to {x} at {t}", "at {t}, tell {p} to {x}"]
        return rng.choice(forms).format(
            p=person, t=said, x=task
        ), f'remind(person="{person}", time="{time}", task="{task}")'
    if kind == 1:
        n, place = rng.randint(2, 12), rng.choice(w.VENUES)
        forms = ["book a table for {n} at the {v} on {d} at {t}", "on {d} at {t} we need a table for {n} at the {v}"]
        asked = rng.choice(forms).format(n=w.NUMBERS[n], v=place, d=day, t=said)
        return asked, f'book(place="{place}", people={n}, day="{day}", time="{time}")'
    if kind == 2:
        forms = ["wake me up at {t} on {d}", "set an alarm for {d}, {t}", "I have to get up at {t} on {d}"]
        return rng.choice(forms).format(t=said, d=day), f'alarm(time="{time}", day="{day}")'
    if kind == 3:
        text = f"{rng.choice(['I am', 'we are'])} {rng.choice([*w.FEELINGS, 'late', 'at home', 'on the bus'])}"
        forms = ["tell {p} that {x}", "write to {p}: {x}", "send {p} a message saying {x}"]
        return rng.choice(forms).format(p=person, x=text), f'send(to="{person}", text="{text}")'
    n, thing, town = rng.randint(1, 12), f"{rng.choice(w.COLOURS)} {rng.choice(w.PRODUCTS)}", rng.choice(w.TOWNS)
    forms = ["order {n} of the {x} to {c}", "I want the {x}, {n} of them, sent to {c}"]
    return rng.choice(forms).format(n=w.NUMBERS[n], x=thing, c=town), f'order(item="{thing}", number={n}, to="{town}")'
