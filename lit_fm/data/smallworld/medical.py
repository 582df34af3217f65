"""Clinical text of the little world: notes, results, letters, prescriptions and what they mean. Nobody should act on it."""

from random import Random

from lit_fm.data.smallworld import words as w
from lit_fm.data.smallworld.general import Writer
from lit_fm.data.smallworld.tasks import shown

_DRUGS = "amoxil bendrol cordex dalvane ferrozin glucamet heptral lisopril metofen novaril ranidex salbutol".split()
_ILLS = {
    "hypertension": ("lisopril", "blood pressure"),
    "diabetes": ("glucamet", "blood sugar"),
    "asthma": ("salbutol", "breathing"),
    "anaemia": ("ferrozin", "haemoglobin"),
    "bronchitis": ("amoxil", "cough"),
    "gastritis": ("ranidex", "stomach pain"),
    "migraine": ("metofen", "headache"),
    "dermatitis": ("cordex", "rash"),
    "arthritis": ("bendrol", "joint pain"),
}
_LABS = {
    "haemoglobin": (7, 18, "g/dl", 12, 16),
    "glucose": (55, 260, "mg/dl", 70, 110),
    "sodium": (125, 152, "mmol/l", 135, 145),
    "potassium": (25, 62, "mmol/dl", 35, 50),
    "creatinine": (5, 32, "mg/l", 6, 12),
    "temperature": (355, 405, "tenths C", 362, 375),
}
_TESTS = "x-ray,blood count,urine test,ultrasound,electrocardiogram,biopsy,spirometry".split(",")


def _patient(rng: Random) -> str:
    years = rng.randint(18, 90)
    return f"{'an' if years == 18 or years // 10 == 8 else 'a'} {years}-year-old {rng.choice(['man', 'woman'])}"


def note(rng: Random) -> str:
    """What a doctor writes after a visit."""
    ill = rng.choice(list(_ILLS))
    drug, sign = _ILLS[ill]
    pain, side = rng.choice(w.AILMENTS), rng.choice(["left", "right"])
    high, low = rng.randint(100, 185), rng.randint(60, 110)
    lungs = rng.choice(["clear", "wheezing"])
    lines = [
        f"History: {_patient(rng)} presents with {pain} of the {side} {rng.choice(w.BODY)} for {rng.randint(2, 14)} days.",
        f"Known {ill}, treated with {drug}. Denies {rng.choice(w.AILMENTS)} and {rng.choice(w.AILMENTS)}.",
        f"Examination: blood pressure {high}/{low}, pulse {rng.randint(55, 120)}, lungs {lungs}.",
        f"Assessment: {ill}{', not controlled' if high > 140 else ', stable'}; {sign} to be followed.",
        f"Plan: {rng.choice(['start', 'continue', 'increase', 'stop'])} {drug} {rng.choice([5, 10, 20, 50, 100])} mg, "
        f"{rng.choice(_TESTS)} in {rng.randint(1, 8)} weeks, return if {rng.choice(w.AILMENTS)} worsens.",
    ]
    return rng.choice(["\n", " "]).join(lines[: rng.randint(3, 5)])


def results(rng: Random) -> str:
    """Laboratory values, each with its verdict."""
    lines = [f"Laboratory report, {rng.choice(w.DAYS)}"]
    for name in rng.sample(list(_LABS), rng.randint(2, 5)):
        least, most, unit, low, high = _LABS[name]
        value = rng.randint(least, most)
        verdict = "low" if value < low else "high" if value > high else "normal"
        lines.append(f"{name}: {value} {unit} ({low} to {high}), {verdict}")
    return "\n".join(lines)


def prescription(rng: Random) -> str:
    """Prescriptions of the task that it does not hold out, as shorthand, in plain words, or both."""
    made = [shown("medical-shorthand", rng) for _ in range(rng.randint(1, 3))]
    form = rng.choice(["Rx {short}", "{plain}", "Rx {short}\nLabel: {plain}"])
    return "\n".join(
        [f"{rng.choice(_DRUGS)} {rng.choice([5, 10, 50])} mg", *(form.format(**fields) for fields in made)]
    )


def leaflet(rng: Random) -> str:
    """What a drug is for, and when not to take it."""
    ill = rng.choice(list(_ILLS))
    drug, sign = _ILLS[ill]
    other = rng.choice([d for d in _DRUGS if d != drug])
    lines = [
        f"{drug.capitalize()} is indicated for the treatment of {ill} in adults.",
        f"It is contraindicated in patients with {rng.choice([i for i in _ILLS if i != ill])} or who take {other}.",
        f"Adverse reactions include {rng.choice(w.AILMENTS)}, {rng.choice(w.AILMENTS)} and {rng.choice(w.AILMENTS)}.",
        f"Monitor {sign} every {rng.randint(2, 12)} weeks during therapy.",
        f"The maximum dose is {rng.choice([2, 3, 4])} tablets per day; in renal impairment, half of it.",
    ]
    return " ".join([lines[0], *rng.sample(lines[1:], rng.randint(2, 4))])


MEDICAL: list[tuple[Writer, int]] = [(note, 40), (results, 20), (prescription, 20), (leaflet, 20)]
