"""Legal text of the little world: contracts, judgments and definitions. Nobody should rely on it."""

from random import Random

from lit_fm.data.smallworld import words as w
from lit_fm.data.smallworld.general import Writer

_PARTIES = [("Landlord", "Tenant"), ("Seller", "Buyer"), ("Lender", "Borrower"), ("Employer", "Employee")]
_PARTIES += [("Licensor", "Licensee")]
_ACTS = ["pay the agreed sum", "deliver the goods", "maintain the premises", "keep the records confidential"]
_ACTS += ["return the property", "give written notice", "bear the costs", "insure the goods"]
_CRIMES = ["breach of contract", "negligence", "trespass", "unpaid rent", "misrepresentation", "nuisance"]


def _clause(one: str, other: str, rng: Random) -> str:
    days, act, thing = rng.choice([7, 14, 30, 60, 90]), rng.choice(_ACTS), rng.choice(_ACTS)
    return rng.choice(
        [
            f"The {one} shall {act} within {days} days of the effective date.",
            f"In the event of default, the {other} may terminate this agreement upon {days} days' written notice.",
            f"Notwithstanding the foregoing, the {one} shall not be obliged to {act} before the {other} has agreed.",
            f"The {other} hereby indemnifies the {one} against all claims arising out of a failure to {thing}.",
            f"This agreement shall be governed by the laws of {rng.choice(w.TOWNS)}.",
            f"Neither party may assign its rights hereunder without the prior consent of the {other}.",
            f"If any provision hereof is held invalid, the obligation to {act} shall remain in force.",
        ]
    )


def contract(rng: Random) -> str:
    """An agreement in numbered clauses."""
    one, other = rng.sample(rng.choice(_PARTIES), 2)
    names = [f"{rng.choice(w.PEOPLE)} {rng.choice(w.SURNAMES)}" for _ in range(2)]
    lines = [f'This agreement is made between {names[0]} (the "{one}") and {names[1]} (the "{other}").']
    lines += [f"{number}. {_clause(one, other, rng)}" for number in range(1, rng.randint(3, 6))]
    return rng.choice(["\n", " "]).join(lines)


def judgment(rng: Random) -> str:
    """A case, what the court held, and what was ordered."""
    one, other = rng.sample(w.SURNAMES, 2)
    claim, upheld = rng.choice(_CRIMES), rng.random() < 0.5
    lines = [
        f"{one} v. {other}, Court of {rng.choice(w.TOWNS)}.",
        f"The plaintiff, {one}, brought an action for {claim} against the defendant, {other}.",
        f"The defendant argued that the {rng.choice(w.PAPERS)} imposed no duty to {rng.choice(_ACTS)}.",
        f"Held: the claim for {claim} is {'well founded' if upheld else 'dismissed'}.",
        f"{other if upheld else one} is ordered to pay {rng.randint(2, 90) * 100} coins in "
        f"{'damages' if upheld else 'costs'} within {rng.choice([14, 30, 60])} days.",
    ]
    return rng.choice(["\n", " "]).join(lines)


def definitions(rng: Random) -> str:
    """What words mean in an agreement."""
    one, other = rng.choice(_PARTIES)
    paper, product = rng.choice(w.PAPERS), rng.choice(w.PRODUCTS)
    lines = [
        f'"Goods" means every {product} supplied by the {one} under this {paper}.',
        f'"Effective Date" means the first {rng.choice(w.DAYS)} after signature by the {other}.',
        f'"Default" means a failure of the {other} to {rng.choice(_ACTS)} when due.',
        f'"Term" means a period of {rng.randint(1, 9)} years, renewable by mutual consent.',
        f'"Premises" means the {rng.choice(w.VENUES)} situated in {rng.choice(w.TOWNS)}.',
    ]
    return "\n".join(["Definitions", *rng.sample(lines, rng.randint(2, 5))])


LEGAL: list[tuple[Writer, int]] = [(contract, 50), (judgment, 30), (definitions, 20)]
