"""Tokenizers made from text, and what a backbone makes of a text."""

import pytest
from transformers import AutoTokenizer

from lit_fm.backbone import load_vectors
from lit_fm.zoo import resolve

CASES = [
    ("bpe", "causal", {"bos_token": "<s>", "eos_token": "</s>"}, ["<s>"], []),
    ("bpe", "masked", {"mask_token": "<mask>", "cls_token": "<s>"}, ["<s>"], ["</s>"]),
    ("bpe", "seq2seq", {"eos_token": "</s>"}, [], ["</s>"]),
    ("wordpiece", None, {"mask_token": "[MASK]", "cls_token": "[CLS]"}, ["[CLS]"], ["[SEP]"]),
    ("unigram", None, {"eos_token": "</s>", "unk_token": "<unk>"}, [], ["</s>"]),
    ("unigram", "causal", {"bos_token": "<s>"}, ["<s>"], []),
]
TEXT = "The teacher, Ada, has 12 keys."


@pytest.mark.parametrize(("kind", "family", "roles", "before", "behind"), CASES)
def test_a_tokenizer_has_the_special_tokens_of_its_family(lit, in_tmp, kind, family, roles, before, behind):
    more = ("--family", family) if family else ()
    args = ("--source", "smallworld/general", "--out", "made", "--kind", kind, "--vocab_size", 700, "--documents", 500)
    done = lit("train-tokenizer", *args, *more)
    assert done.code == 0, done.err
    made = AutoTokenizer.from_pretrained(in_tmp / "made")
    assert roles.items() <= made.special_tokens_map.items()
    assert len(made) <= 700
    tokens = made.convert_ids_to_tokens(made(TEXT)["input_ids"])
    assert tokens[: len(before)] == before
    assert tokens[len(tokens) - len(behind) :] == behind
    assert not set(tokens[len(before) : len(tokens) - len(behind)]) & set(made.all_special_tokens)
    if family == "seq2seq" or (kind == "unigram" and family is None):
        ids = made.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(100)])
        assert len(set(ids)) == 100
        assert made.unk_token_id not in ids
    if kind != "wordpiece":  # nothing is unknown, nothing is lost
        for text in (TEXT, "Où est la clé ?", "{x: 今天} ~ ไทย", "def f(a):  return a"):
            ids = made(text, add_special_tokens=False)["input_ids"]
            assert made.decode(ids) == text
            assert made.unk_token_id is None or made.unk_token_id not in ids
    assert lit("train-tokenizer", *args).code == 1  # never overwritten


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--vocab_size", 100), "give at least"),
        (("--kind", "wordpeace"), "one of"),
        (("--source", "nothing.txt"), "there is no file or folder 'nothing.txt'"),
        (("--source", "smallworld/generel"), "did you mean 'general'?"),
    ],
)
def test_a_tokenizer_that_cannot_be_made_is_one_clear_error(lit, in_tmp, args, message):
    given = {"--source": "smallworld/general", "--out": "made", **dict([args])}
    done = lit("train-tokenizer", *(part for pair in given.items() for part in pair))
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (in_tmp / "made").exists()


def test_tokens_shows_pieces_ids_and_vectors(lit):
    done = lit("tokens", "The teacher teaches the student.", "--numbers", 3)
    assert done.code == 0, done.err
    made = AutoTokenizer.from_pretrained(resolve("tiny-clm"))
    ids = made("The teacher teaches the student.")["input_ids"]
    vectors = load_vectors("tiny-clm")
    lines = [line.split("│") for line in done.out.splitlines() if line.startswith("│")]
    assert [int(cells[3]) for cells in lines] == ids
    assert [cells[2].strip() for cells in lines] == made.convert_ids_to_tokens(ids)
    for cells, number in zip(lines, ids, strict=True):
        assert [float(n) for n in cells[5].split()] == pytest.approx(vectors[number, :3].tolist(), abs=1e-4)
    assert "".join(cells[4].strip().strip("'") if cells[4].strip() != "special" else "" for cells in lines)


@pytest.mark.parametrize(
    ("args", "message"), [((), "text must be given"), (("x", "--backbone", "tiny-cl"), "did you mean 'tiny-clm'?")]
)
def test_tokens_without_text_or_backbone_is_one_clear_error(lit, args, message):
    done = lit("tokens", *args)
    assert done.code != 0
    assert message in done.err
