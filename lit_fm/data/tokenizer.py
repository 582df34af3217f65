"""Make a tokenizer from text."""

from pathlib import Path


def train_tokenizer(source: str, out: str, vocab_size: int = 2048, documents: int = 20_000, seed: int = 0) -> None:
    """Byte-level BPE in Hugging Face form, with `<s>` before a text and `</s>` after it.

    Args:
        source: a text file, or `smallworld/CORPUS`.
        out: a folder; a tokenizer that is there already is not overwritten.
        vocab_size: tokens in all, with the special ones and the 256 bytes.
        documents: how many smallworld makes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from lit_fm.data import smallworld

    if (Path(out) / "tokenizer.json").exists():
        raise FileExistsError(f"{out} has a tokenizer already: remove tokenizer.json, or choose another folder.")
    if vocab_size < 300:
        raise ValueError(f"vocab_size is {vocab_size}; bytes and special tokens alone take 259: give at least 300.")
    if source.startswith(smallworld.PREFIX):
        texts = smallworld.documents(source.removeprefix(smallworld.PREFIX), "train", documents, seed)
    else:
        texts = Path(source).read_text(encoding="utf-8").splitlines()
    bpe = Tokenizer(models.BPE())
    # Digits one by one, so that a number is read from its digits.
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    tokenizer.save_pretrained(out)
    print(f"{tokenizer.vocab_size:,} tokens from {len(texts):,} texts, written to {out}")
