"""How fast rows become tokens: reading, templates, labels and the cache, beside the bare tokenizer.

`python benchmarks/preparation.py [--megabytes 50] [--backbone tiny-clm]`: prompt/completion rows in JSON lines, made of
smallworld's text. The bare tokenizer is `encode_batch`, and `encode_batch_fast` that leaves offsets out, over texts that
are in memory already, a thousand at a time; it hands ids and labels to nobody.
"""

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"

from lit_fm import CausalLM, InstructionData
from lit_fm.data import smallworld


def write(path: Path, size: int) -> None:
    """Rows of two to six sentences as the prompt, one to four as the answer."""
    rng = random.Random(0)
    texts = smallworld.documents("general", "train", 3000)
    sentences = [line for text in texts for line in text.split("\n") if len(line) > 30]
    with path.open("w") as file:
        while file.tell() < size:
            prompt, answer = (" ".join(rng.choices(sentences, k=rng.randint(*span))) for span in ((2, 6), (1, 4)))
            file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")


def prepared(path: Path, backbone: str, seed: int) -> float:
    """Seconds until training could begin."""
    begun = time.perf_counter()
    data = InstructionData(str(path), test_share=0, max_length=512, seed=seed)
    data.attach(CausalLM(backbone))
    data.setup("fit")
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--backbone", default="tiny-clm")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    os.environ["LIT_FM_CACHE"] = str(folder / "cache")
    path = folder / "rows.jsonl"
    write(path, asked.megabytes * 1_000_000)
    rows = [json.loads(line) for line in path.open()]
    texts = [f"{row['prompt']}\n{row['completion']}" for row in rows]
    encoder = CausalLM(asked.backbone).tokenizer.backend_tokenizer
    encoder.encode_batch_fast(texts[:1000])
    for turn in range(3):
        bare = {}
        for name in ("encode_batch", "encode_batch_fast"):
            begun = time.perf_counter()
            for start in range(0, len(texts), 1000):
                getattr(encoder, name)(texts[start : start + 1000], add_special_tokens=False)
            bare[name] = time.perf_counter() - begun
        ours, again = prepared(path, asked.backbone, turn), prepared(path, asked.backbone, turn)
        shares = ", ".join(f"{seconds / ours:.2f} of {name} ({seconds:.1f} s)" for name, seconds in bare.items())
        print(f"{len(rows):,} rows, {asked.megabytes} MB in {ours:.1f} s: {shares}; from the cache {again:.2f} s")


if __name__ == "__main__":
    main()
