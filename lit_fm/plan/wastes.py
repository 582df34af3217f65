"""What of a step's time is wasted, in words, and what to change; by rules over what was measured.

A share says how much of the time would be saved if the waste were gone altogether: an upper bound, from counts, and the
shares of several wastes may overlap.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from lit_fm.plan.phases import BACKWARD, DATA, FORWARD, OPTIMIZER, OTHER, Measured
from lit_fm.plan.quantity import short

LEAST = 0.03
"""Smaller wastes are not worth a word."""
USUAL = 0.5
"""The share of the machine's peak that the products of a network that is large enough reach."""


BUSY = 0.3
"""Cores that others take, from which on times mean little."""


class Waste(NamedTuple):
    """Of the step's time at most this share, and what to do."""

    share: float
    text: str


def largest(
    found: Measured, objective: Any, data: Any, peak: float, half: float | None = None, number: int = 3
) -> list[Waste]:
    """The largest wastes of the steps, the largest first.

    Args:
        peak: operations a second that the machine reaches in products of large matrices.
        half: the same in bfloat16, where the steps are in float32.
    """
    every = [*_of_data(found, data, objective), *_of_steps(found, objective), *_of_products(found, objective, peak)]
    if half:
        text = (
            f"Matrices of bfloat16 are multiplied {half / peak:.1f} times as fast here: trainer.precision bf16-mixed."
        )
        every.append(Waste((1 - peak / half) * _computing(found), text))
    return sorted((waste for waste in every if waste.share >= LEAST), reverse=True)[:number]


def shares(found: Measured) -> dict[str, float]:
    """Of the time, by phase."""
    return {phase: seconds / sum(found.seconds.values()) for phase, seconds in found.seconds.items()}


def _computing(found: Measured) -> float:
    return shares(found)[FORWARD] + shares(found)[BACKWARD]


def _of_data(found: Measured, data: Any, objective: Any) -> Iterator[Waste]:
    share, workers = shares(found)[DATA], getattr(data, "workers", 0)
    yield Waste(share, f"Waiting for data takes {share:.0%} of a step: data.workers {max(2, 2 * workers)}.")
    empty = 1 - data.fill() if hasattr(data, "fill") else 0.0
    if not empty or data.packing == "best-fit":  # nothing is computed for the empty end of a packed row
        return
    packs = hasattr(objective, "pack") and hasattr(data, "max_new_tokens") and data.has_answers
    change = "data.packing padding-free" if packs else "rows of a smaller data.batch_size are more alike in length"
    yield Waste(empty * _computing(found), f"{empty:.0%} of positions are padding: {change}.")


def _of_steps(found: Measured, objective: Any) -> Iterator[Waste]:
    share, of = shares(found)[OPTIMIZER], objective.optimizers(use_pl_optimizer=False).defaults
    slow = "fused" in of and not of["fused"]
    change = "its argument fused: true, or" if slow else "it is paid once a step:"
    yield Waste(
        share if share > 0.1 else 0.0, f"The optimizer takes {share:.0%} of a step: {change} more tokens a step."
    )
    other = shares(found)[OTHER]
    text = (
        f"Logging and all else outside the network takes {other:.0%} of a step: trainer.log_every_n_steps 10, or more"
    )
    yield Waste(other, f"{text} tokens a step.")
    if objective.activation_checkpointing:
        share = shares(found)[BACKWARD] / 3  # a forward pass beside the two products of a backward pass
        text = f"Activations are computed again, about {share:.0%} of a step: if memory allows,"
        yield Waste(share, f"{text} model.activation_checkpointing false.")


def _of_products(found: Measured, objective: Any, peak: float) -> Iterator[Waste]:
    head = objective.network.get_output_embeddings()
    if head is not None and found.logits > 0.2:
        vocabulary, width = head.weight.shape
        text = f"Logits take {found.logits:.0%} of the operations: vocabulary {vocabulary:,} against width {width:,}."
        yield Waste(found.logits * _computing(found), f"{text} A smaller vocabulary.")
    reached = utilisation(found, peak) / max(_computing(found), 1e-9)
    if found.flops and reached < USUAL and found.others < BUSY:  # else it is them
        n = short(sum(p.numel() for p in objective.network.parameters()))
        text = (
            f"Forward and backward reach {reached:.0%} of the machine's peak: {n} parameters, or the tokens of a batch,"
        )
        yield Waste(
            (1 - reached / USUAL) * _computing(found), f"{text} are too few to fill it: a larger data.batch_size."
        )


def utilisation(found: Measured, peak: float) -> float:
    """Operations of the steps by those that the machine could make in their time (MFU; activations that are computed again
    count as well)."""
    return found.flops * found.tokens / sum(found.seconds.values()) / peak
