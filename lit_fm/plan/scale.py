"""The verb `scale`: what training costs, and how far it is from compute-optimal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from lit_fm.durable import free
from lit_fm.plan.frontier import draw_frontier, draw_loss, trained
from lit_fm.plan.quantity import number, short
from lit_fm.plan.rule_of_thumb import STORED, TRAINED
from lit_fm.plan.scaling import PEAKS, Budget, Law, find_law, third

console = Console(highlight=False)  # screen.py's would import Lightning, which takes seconds

KAPLAN_NOTE = (
    "Parameters are without embeddings. This law's loss is of training until it falls no more, its optimum stops before: "
    "the loss of the optimum is left out."
)


def scale(
    parameters: str | None = None,
    tokens: str | None = None,
    compute: str | None = None,
    law: str = "twenty",
    out: str | None = None,
) -> None:
    """What training costs, the loss to expect, and how far that is from compute-optimal. One part: its optimum.

    Args:
        parameters: such as 70e9 or 70B.
        tokens: that are trained on, such as 1.4e12 or 1.4T.
        compute: FLOPs, such as 5.76e23: 6 for each parameter and token.
        law: twenty (20 tokens a parameter), chinchilla1, chinchilla2, chinchilla3, besiroglu or kaplan.
        out: folder for two pictures, loss over compute and the compute-optimal frontier; nothing is written over.

    Raises:
        ValueError: no part, three that disagree, one that is no positive number, no such law, or no such folder.
    """
    chosen = find_law(law)
    written = {"parameters": parameters, "tokens": tokens, "compute": compute}
    given = {name: number(value, name) for name, value in written.items() if value is not None}
    if not given:
        raise ValueError(
            f"expected one or two of {', '.join(f'--{name}' for name in written)}, such as --parameters 70B."
        )
    mine = third(**given) if len(given) > 1 else None
    folder = made(out) if out is not None else None
    best = chosen.optimum(compute=mine.compute) if mine else chosen.optimum(**given)
    console.print(table(mine, best, chosen))
    if mine:
        console.print(verdict(mine, best, chosen))
    if not chosen.compares:
        console.print(KAPLAN_NOTE)
    if folder:
        models, point = trained(), mine or best
        for name, draw in (("loss", draw_loss), ("frontier", draw_frontier)):
            draw(law, models, point, picture := free(folder / f"{name}.png"))
            console.print(f"Written to {picture}")


def made(out: str) -> Path:
    """The folder, made if need be."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out: {out} is no folder and cannot be made one ({error.strerror}). Choose another."
        ) from error
    return Path(out)


def table(mine: Budget | None, best: Budget, law: Law) -> Table:
    """The budget beside the optimum that costs as much."""
    columns: list[Budget] = [mine, best] if mine else [best]
    shown = Table("", *(["this"] if mine else []), "compute-optimal", title=f"Law: {law.title}")
    for column in shown.columns[1:]:
        column.justify = "right"
    shown.add_row("parameters", *(short(b.parameters) for b in columns))
    shown.add_row("tokens", *(short(b.tokens) for b in columns))
    shown.add_row("tokens per parameter", *(f"{b.tokens / b.parameters:,.3g}" for b in columns))
    shown.add_row("FLOPs", *(f"{b.compute:.3g}" for b in columns))
    shown.add_row("petaflop/s-days", *(amount(b.petaflop_days) for b in columns))
    for device in PEAKS:
        shown.add_row(f"{device}-days at full efficiency", *(amount(b.device_days(device)) for b in columns))
    for dtype, stored in STORED.items():
        shown.add_row(f"GB to store in {dtype}", *(amount(stored * b.parameters / 1e9) for b in columns))
    shown.add_row(
        f"GB to train, {TRAINED} bytes a parameter\n(float32, Adam)",
        *(amount(TRAINED * b.parameters / 1e9) for b in columns),
    )
    losses = [f"{law.loss(b.parameters, b.tokens):.3f}" if law.compares or b is mine else "" for b in columns]
    shown.add_row(f"expected loss, nats a token\n({law.loss_of})", *losses)
    return shown


def amount(value: float) -> str:
    """With thousands parted, and three digits where there are fewer."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(mine: Budget, best: Budget, law: Law) -> str:
    """How far from compute-optimal."""
    ratio = mine.parameters / best.parameters
    if abs(ratio - 1) < 0.05:
        return "Compute-optimal, to 5 %."
    said = f"{ratio:.3g} times the parameters and {1 / ratio:.3g} times the tokens that are optimal for this compute."
    if not law.compares:
        return said
    share = law.least_compute(mine) / mine.compute
    if share > 0.995:  # flat here; where the loss is another law's, its own optimum may lie nearer to this budget
        return said
    return f"{said} The optimum reaches the same loss with {100 * share:.0f} % of the compute."
