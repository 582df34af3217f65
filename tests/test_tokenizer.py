"""Tokenizers made from text, what a backbone makes of a text, and the zoo."""

import json

import pytest
from conftest import ROOT
from transformers import AutoTokenizer

from lit_fm.backbone import load_vectors
from lit_fm.zoo import entries

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
    made = AutoTokenizer.from_pretrained(entries()["tiny-clm"])
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


def test_the_zoo_lists_every_entry_and_shows_its_card(lit):
    listed = lit("zoo", "list")
    assert listed.code == 0, listed.err
    assert lit("zoo").out == listed.out
    for name in entries():
        [line] = [line for line in listed.out.splitlines() if line.startswith(name)]
        assert "MB of weights" in line or "no weights here" in line
        shown = lit("zoo", "show", name)
        assert shown.out.startswith(f"# {name}\n")


def test_a_folder_is_a_new_entry(lit, in_tmp, monkeypatch):
    import lit_fm.zoo as zoo

    monkeypatch.setattr(zoo, "SHARE", in_tmp)
    folder = in_tmp / "zoo" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text((ROOT / "zoo" / "tiny-clm" / "config.json").read_text())
    assert "mine  LlamaForCausalLM" in lit("zoo", "list").out
    assert "write" in lit("zoo", "show", "mine").out
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# mine\n\nWhat I made.\n")
    assert "What I made." in lit("zoo", "list").out
    assert lit("zoo", "show", "mine").out == "# mine\n\nWhat I made.\n"
    assert zoo.resolve("mine") == str(folder)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "tiny-xlm"), "did you mean 'tiny-"),
        (("show",), "needs the name of an entry"),
        (("list", "tiny-clm"), "zoo show tiny-clm shows its card"),
        (("shwo", "tiny-clm"), "one of 'list', 'show'"),
        (("show", "tiny-clm", "more"), "more"),
    ],
)
def test_a_wrong_word_to_the_zoo_is_one_clear_error(lit, args, message):
    done = lit("zoo", *args)
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", entries())
def test_every_entry_is_small_has_a_card_and_its_own_recipe(name):
    folder = entries()[name]
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    card = (folder / "README.md").read_text()
    assert weights <= 6e6
    assert weights == 0 or f"pretrain/{name}.yaml" in card
    for section in ("Model Details", "Uses", "Bias, Risks and Limitations", "Training Details", "Evaluation"):
        assert f"## {section}" in card
    config = json.loads((folder / "config.json").read_text())
    assert len(AutoTokenizer.from_pretrained(folder)) <= config["vocab_size"]
