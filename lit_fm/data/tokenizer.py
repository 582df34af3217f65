"""Make a tokenizer from text: BPE, WordPiece or Unigram, with the special tokens of its family."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

Kind = Literal["bpe", "wordpiece", "unigram"]
Family = Literal["causal", "masked", "seq2seq"]
SENTINELS = 100
# By family: each role's token, and what stands round a text.
_FAMILIES: dict[tuple[str, bool], tuple[dict[str, str], str]] = {
    ("causal", True): ({"pad": "<pad>", "bos": "<s>", "eos": "</s>"}, "<s> $A"),
    ("causal", False): ({"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"}, "<s> $A"),
    ("masked", True): ({"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}, "<s> $A </s>"),
    ("masked", False): (
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        "[CLS] $A [SEP]",
    ),
    ("seq2seq", True): ({"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}, "$A </s>"),
    ("seq2seq", False): ({"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, "$A </s>"),
}
_DEFAULT: dict[str, Family] = {"bpe": "causal", "wordpiece": "masked", "unigram": "seq2seq"}


def train_tokenizer(
    source: str,
    out: str,
    kind: Kind = "bpe",
    family: Family | None = None,
    vocab_size: int = 2048,
    documents: int = 20_000,
    column: str = "text",
    extra_tokens: list[str] | None = None,
    seed: int = 0,
) -> None:
    """A tokenizer in Hugging Face form: nothing is unknown to BPE (bytes) and Unigram (bytes where no piece fits).

    Args:
        source: text as `TextCorpus` reads it: a file, a folder, a Hugging Face id, or `smallworld/CORPUS`.
        out: a folder; a tokenizer that is there already is not overwritten.
        kind: byte-level BPE as GPT, WordPiece as BERT, Unigram as T5.
        family: `causal` has a token before a text and one that ends it, `masked` a mask, `seq2seq` 100 sentinels; what
            models of this kind mostly have, where nothing is said.
        vocab_size: tokens in all, with the special ones and the 256 bytes.
        documents: how many smallworld makes.
        extra_tokens: further special tokens, such as those of fill-in-the-middle.
    """
    from lit_fm.data.documents import documents as read
    from lit_fm.nearest import did_you_mean

    if (Path(out) / "tokenizer.json").exists():
        raise FileExistsError(f"{out} has a tokenizer already: remove tokenizer.json, or choose another folder.")
    if kind not in _DEFAULT:
        raise ValueError(f"there is no kind of tokenizer {kind!r}: {did_you_mean(kind, _DEFAULT)}")
    family = family or _DEFAULT[kind]
    roles, around = _FAMILIES[family, kind == "bpe"]
    sentinels = [f"<extra_id_{i}>" for i in range(SENTINELS)] if family == "seq2seq" else []
    special = [*roles.values(), *sentinels, *(extra_tokens or ())]
    least = len(special) + (256 if kind != "wordpiece" else 0) + 41
    if vocab_size < least:
        raise ValueError(f"vocab_size is {vocab_size}; special tokens and bytes leave no room: give at least {least}.")
    seen = 0

    def texts() -> Iterator[str]:
        nonlocal seen
        for text in read(source, column, {"train": documents}, seed)["train"]():
            seen += 1
            yield text

    made = _TRAINERS[kind](texts(), vocab_size, special, roles.get("unk"))
    _save(made, out, around, roles, [*sentinels, *(extra_tokens or ())])
    print(f"{made.get_vocab_size():,} tokens ({kind}, {family}) from {seen:,} texts, written to {out}")


def _save(made: Any, out: str, around: str, roles: dict[str, str], more: list[str]) -> None:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    named = [(token, made.token_to_id(token)) for token in around.split() if token in roles.values()]
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=named)
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=more,
        **{f"{role}_token": token for role, token in roles.items()},
    ).save_pretrained(out)


def _bpe(texts: Iterator[str], size: int, special: list[str], unknown: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    # Digits one by one, so that a number is read from its digits.
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    return made


def _wordpiece(texts: Iterator[str], size: int, special: list[str], unknown: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.WordPiece(unk_token=unknown))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    return made


def _unigram(texts: Iterator[str], size: int, special: list[str], unknown: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    draft = Tokenizer(models.Unigram())
    draft.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    # A space is a piece's first character, as in sentencepiece; digits one by one.
    draft.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    unknown = unknown or "<unk>"
    names = special if unknown in special else [*special, unknown]
    draft.train_from_iterator(
        texts,
        trainers.UnigramTrainer(vocab_size=size - 256, special_tokens=names, unk_token=unknown, show_progress=False),
    )
    learnt = json.loads(draft.to_str())["model"]["vocab"]
    worst = min(score for _, score in learnt)
    pieces = [(piece, score) for piece, score in learnt] + [(f"<0x{byte:02X}>", worst - 10) for byte in range(256)]
    made = Tokenizer(models.Unigram(pieces, unk_id=names.index(unknown), byte_fallback=True))
    made.normalizer, made.pre_tokenizer = draft.normalizer, draft.pre_tokenizer
    made.add_special_tokens(names)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


_TRAINERS: dict[str, Callable[[Iterator[str], int, list[str], str | None], Any]] = {
    "bpe": _bpe,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
}
