"""What a backbone makes of a text: its pieces, their ids, and the vectors that stand for them."""

from rich.table import Table
from rich.text import Text

from lit_fm.backbone import load_tokenizer, load_vectors
from lit_fm.screen import console


def tokens(text: str, backbone: str = "tiny-clm", numbers: int = 4) -> None:
    """Print each token of a text with its id, the characters it stands for, and the first numbers of its vector.

    Args:
        backbone: a zoo entry, a Hugging Face id, or a folder.
        numbers: how many of a vector are shown.

    Raises:
        ValueError: there is no text, or no such backbone.
    """
    if not text or numbers < 0:
        raise ValueError(f"tokens needs a text and numbers >= 0, got {text!r} and {numbers}: give a text in quotes.")
    tokenizer = load_tokenizer(backbone)
    vectors = load_vectors(backbone).detach().float()
    encoding = tokenizer.backend_tokenizer.encode(text)
    table = Table("", "piece", "id", "text", f"vector (first {numbers} of {vectors.shape[1]:,} numbers)")
    for place, (number, (start, stop)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True), 1):
        piece, shown = (
            str(tokenizer.convert_ids_to_tokens(number)),
            repr(text[start:stop]) if stop > start else "special",
        )
        vector = "  ".join(f"{value:+.4f}" for value in vectors[number, :numbers].tolist())
        table.add_row(str(place), Text(piece), str(number), Text(shown), vector)
    console.print(table)
    console.print(f"{len(encoding.ids)} tokens for {len(text)} characters, of a vocabulary of {len(tokenizer):,}.")
