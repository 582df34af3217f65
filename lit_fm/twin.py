"""A small twin of an architecture: the same kinds of layers, few and thin, with a tiny tokenizer. It trains on a laptop."""

import json
import shutil
from pathlib import Path
from typing import Any

from lit_fm.cards import read_card
from lit_fm.nearest import did_you_mean
from lit_fm.plan.quantity import short
from lit_fm.zoo import entries

HEADS = 4
TOKENIZERS = {"causal": "tiny-clm", "masked": "tiny-mlm", "seq2seq": "tiny-t5", "permutation": "tiny-clm"}
# What configurations call the same thing.
_WIDTH = ("hidden_size", "d_model", "n_embd", "word_embed_proj_dim")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads", "decoder_attention_heads")
_HEAD = ("head_dim", "d_kv", "query_pre_attn_scalar")
_INNER = ("intermediate_size", "d_ff", "d_inner", "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim")
_LIKE = {"bos": "cls", "eos": "sep", "cls": "bos", "sep": "eos"}


def twin(name: str, out: str, width: int = 64, layers: int = 2) -> None:
    """Write a small twin of an entry of the zoo, with a tokenizer: to be trained from nothing.

    Args:
        name: of the entry.
        out: a new folder.
        width: of its layers; four heads share it.

    Raises:
        ValueError: there is no such entry, or no network of that size.
        FileExistsError: `out` is there already.
    """
    known = entries()
    if name not in known:
        raise ValueError(f"twin: there is no entry {name!r} in the zoo: {did_you_mean(name, known)}")
    if width < 8 or width % 8 or layers < 1:
        raise ValueError(f"twin: width {width} must be a multiple of 8, layers {layers} at least 1: correct it.")
    card, folder = read_card(known[name]), Path(out)
    if folder.exists():
        raise FileExistsError(f"--out {out} is there already, and nothing is overwritten: name another folder.")
    tokenizer = known[TOKENIZERS[card.facts["objective"]]]
    special = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    pieces = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    numbers = {token["content"]: token["id"] for token in pieces["added_tokens"]}
    ids = {
        key.removesuffix("_token"): numbers[token]
        for key, token in special.items()
        if key.endswith("_token") and token in numbers
    }
    small = shrink(card.config, len(pieces["model"]["vocab"]), ids, width, layers)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(small, indent=2) + "\n", encoding="utf-8")
    for file in tokenizer.glob("tokenizer*"):
        shutil.copyfile(file, folder / file.name)
    print(
        f"{folder}: {name} ({short(card.facts['parameters'])}) with {layers} layers of width {width} and the tokenizer of "
        f"{tokenizer.name}. Train it by {card.facts['trained_by']}: --model.backbone {folder} --model.from_scratch true"
    )


def shrink(
    config: dict[str, Any], vocabulary: int, ids: dict[str, int], width: int = 64, layers: int = 2
) -> dict[str, Any]:
    """A configuration with small numbers for large ones: proportions, kinds of layers and switches stay.

    Args:
        vocabulary: of the tokenizer that goes with it.
        ids: its special tokens, such as {"pad": 0}.
    """
    wide = next(config[key] for key in _WIDTH if key in config)
    heads = next(config[key] for key in _HEADS if key in config)
    small = {**config, "vocab_size": vocabulary}
    for names, value in ((_WIDTH, width), (_LAYERS, layers), (_HEADS, HEADS), (_HEAD, width // HEADS)):
        small |= {key: value for key in names if key in config}
    small |= {key: min(8 * width, config[key] * width // wide // 8 * 8) for key in _INNER if config.get(key)}
    if "num_key_value_heads" in config:  # shared as before: by all, by some, or by none
        small["num_key_value_heads"] = max(1, HEADS * config["num_key_value_heads"] // heads)
    for key in [key for key in config if key.endswith("_token_id")]:
        kind = key.removesuffix("_token_id")
        if kind in ("decoder_start", "forced_eos"):  # one of the others
            kind = "pad" if config[key] == config.get("pad_token_id") else "eos"
        small[key] = ids.get(kind, ids.get(_LIKE.get(kind, "")))
    return {**small, "dtype": "float32"}
