"""What is learnt is exactly the answer and the token that ends it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lit_fm import CausalLM
from lit_fm.backbone import load_tokenizer
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.templates import pair_segments
from lit_fm.data.tokens import IGNORED
from lit_fm.objectives.causal import cut_left

TEXT = ["the answer is yes and no", "Take two tablets: 10.5 mg, twice!", "naïve café — 東京 สวัสดี", "a  b\n\nc"] * 3


def _trained(model, trainer, pre, decoder, bos, trim=True):
    made = Tokenizer(model)
    made.pre_tokenizer, made.decoder = pre, decoder
    made.train_from_iterator(TEXT, trainer)
    if bos:
        ids = [("<s>", made.token_to_id("<s>"))]
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=ids)
    elif isinstance(pre, pre_tokenizers.ByteLevel):
        made.post_processor = processors.ByteLevel(trim_offsets=trim)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def tokenizers():
    special = ["<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = lambda: trainers.BpeTrainer(  # noqa: E731
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    byte_level = lambda: pre_tokenizers.ByteLevel(add_prefix_space=False)  # noqa: E731
    made = {
        "bpe": _trained(models.BPE(), bpe(), byte_level(), decoders.ByteLevel(), bos=False),
        "bpe-untrimmed": _trained(models.BPE(), bpe(), byte_level(), decoders.ByteLevel(), bos=False, trim=False),
        "bpe-bos": _trained(models.BPE(), bpe(), byte_level(), decoders.ByteLevel(), bos=True),
        "unigram": _trained(
            models.Unigram(),
            trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False),
            pre_tokenizers.Metaspace(),
            decoders.Metaspace(),
            bos=True,
        ),
        "wordpiece": _trained(
            models.WordPiece(unk_token="<unk>"),
            trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False),
            pre_tokenizers.BertPreTokenizer(),
            decoders.WordPiece(),
            bos=True,
        ),
    }
    made["wordpiece"].backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    return made


TOKENIZERS = tokenizers()
WORDS = st.text(alphabet="abe yot:.!?\n0123, ésTk{}%/東ก", min_size=1, max_size=24)


@settings(max_examples=150, deadline=None)
@given(prompt=WORDS, completion=WORDS)
@pytest.mark.parametrize("name", ["bpe", "bpe-untrimmed", "bpe-bos"])
def test_learnt_tokens_decode_to_the_completion_and_the_rest_is_the_prompt_as_served(name, prompt, completion):
    """Byte-level tokenizers lose nothing, so equality of text is exact."""
    encoder, tokenizer = SegmentEncoder(TOKENIZERS[name]), TOKENIZERS[name]
    [(ids, learnt)] = encoder([[(prompt, False), (completion, True)]], [False])
    assert tokenizer.decode(ids[learnt]) == completion
    assert tokenizer.decode(ids[~learnt], skip_special_tokens=True) == prompt
    assert not learnt[: int(np.argmax(learnt))].any()
    assert (ids == tokenizer.bos_token_id).sum() == len(encoder.prefix)


@settings(max_examples=150, deadline=None)
@given(prompt=WORDS, completion=WORDS)
@pytest.mark.parametrize("name", ["unigram", "wordpiece"])
def test_learnt_tokens_are_those_of_the_completion_with_tokenizers_that_normalise(name, prompt, completion):
    tokenizer = TOKENIZERS[name]
    [(ids, learnt)] = SegmentEncoder(tokenizer)([[(prompt, False), (completion, True)]], [False])

    def letters(text):  # such tokenizers drop or add white space, and know few letters
        return "".join(tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]).split())

    assert "".join(tokenizer.decode(ids[learnt]).replace("##", "").split()) == letters(completion)
    assert (ids == tokenizer.bos_token_id).sum() == 1
    assert ids[0] == tokenizer.bos_token_id


def test_a_token_that_would_reach_over_the_border_is_parted():
    """`answer: ` + `yes`: the tokenizer would join the space to the answer."""
    tokenizer = TOKENIZERS["bpe"]
    joined = tokenizer("answer is yes")["input_ids"]
    [(ids, learnt)] = SegmentEncoder(tokenizer)([[("answer is ", False), ("yes", True)]], [False])
    assert ids.tolist() != joined
    assert tokenizer.decode(ids[learnt]) == "yes"
    assert ids[~learnt].tolist() == tokenizer("answer is ")["input_ids"]


@pytest.fixture
def causal(llama):
    return CausalLM(llama)


def test_the_end_token_is_learnt_also_when_it_is_the_padding_token(causal):
    causal.tokenizer.pad_token = causal.tokenizer.eos_token
    items = causal.encode([{"prompt": "a b", "completion": "c"}, {"prompt": "a", "completion": "d e f g h"}], 64)
    batch = causal.collate(items)
    assert (batch["targets"] == causal.tokenizer.eos_token_id).sum() == 2
    assert all(item["labels"][-1] == causal.tokenizer.eos_token_id for item in items)


def test_a_long_prompt_loses_its_left_and_never_the_answer(causal):
    example = {"prompt": "word " * 300, "completion": "the answer stays"}
    [item] = causal.encode([example], 64)
    assert len(item["input_ids"]) == 64
    assert item["input_ids"][0] == causal.tokenizer.bos_token_id
    learnt = item["labels"][item["labels"] != IGNORED]
    assert causal.tokenizer.decode(learnt) == "the answer stays</s>"
    assert "shortened" in item


def test_a_long_conversation_loses_its_first_turns_and_no_answer_in_part(causal):
    turns = []
    for i in range(12):
        turns += [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"the answer {i}"}]
    whole = causal.tokenizer.eos_token.join(f"the answer {i}" for i in range(12)) + causal.tokenizer.eos_token
    for limit in range(40, 120):
        [item] = causal.encode([{"messages": turns}], limit)
        assert len(item["input_ids"]) == limit
        assert item["input_ids"][0] == causal.tokenizer.bos_token_id
        kept = causal.tokenizer.decode(item["labels"][item["labels"] != IGNORED])
        assert whole.endswith(kept)
        assert kept.startswith("the answer")


@pytest.mark.parametrize("behind", range(4))
def test_what_stands_behind_the_last_answer_goes_before_anything_else(behind):
    ids, learnt = np.arange(7 + behind), np.isin(np.arange(7 + behind), (2, 5, 6))
    assert [kept.tolist() for kept in cut_left(ids, learnt, 7, [0])] == [ids[:7].tolist(), learnt[:7].tolist()]
    assert cut_left(ids, learnt, 4, [0])[0].tolist() == [0, 4, 5, 6]


def test_without_a_start_token_an_answer_is_kept_only_with_a_token_before_it(causal):
    backend = causal.tokenizer.backend_tokenizer
    backend.post_processor = processors.ByteLevel()
    answer = "one two three"
    n = len(backend.encode(answer).ids) + 1
    example = {"prompt": "a long prompt " * 20, "completion": answer}
    assert causal.encode([example], n) == [f"answer longer than {n} tokens"]
    [item] = causal.encode([example], n + 1)
    assert causal.tokenizer.decode(item["labels"][1:]) == answer + causal.tokenizer.eos_token


@pytest.mark.parametrize(
    ("example", "why"),
    [
        ({"prompt": "p", "completion": ""}, "empty answer"),
        ({"prompt": "p", "completion": " \n"}, "empty answer"),
        ({"prompt": "p", "completion": "many words " * 60}, "answer longer than 64 tokens"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "empty answer"),
    ],
)
def test_an_example_without_a_target_is_named_not_trained_on(causal, example, why):
    assert causal.encode([example], 64) == [why]


@pytest.mark.parametrize(("prompt", "served"), [("2+2?", "2+2?\n"), ("2+2? ", "2+2? "), ("2+2?\n", "2+2?\n"), ("", "")])
@pytest.mark.parametrize("completion", ["4", " 4", "\n4"])
def test_what_stands_between_prompt_and_answer_depends_on_the_prompt_alone(causal, prompt, served, completion):
    """It must be known before there is an answer."""
    assert pair_segments({"prompt": prompt, "completion": completion}) == [(served, False), (completion, True)]
    assert causal.prompt({"prompt": prompt, "completion": ""}) == served


CHATML = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A model."},
    {"role": "user", "content": "And {{ you }}?"},
    {"role": "assistant", "content": "Still a model."},
]


@pytest.mark.parametrize("template", [None, CHATML])
def test_of_a_conversation_the_answers_are_learnt_and_nothing_else(causal, template):
    causal.tokenizer.chat_template = template
    [item] = causal.encode([{"messages": TURNS}], 256)
    learnt = item["labels"][item["labels"] != IGNORED]
    assert causal.tokenizer.decode(learnt) == "A model.</s>Still a model.</s>"
    assert (item["input_ids"] == causal.tokenizer.bos_token_id).sum() == 1
    assert causal.answer({"messages": TURNS}) == "Still a model."


def test_the_plain_chat_format_is_one_line_a_turn(causal):
    assert causal.prompt({"messages": TURNS}) == (
        "<s>System: Be brief.\nUser: Who are you?\nAssistant: A model.</s>\nUser: And {{ you }}?\nAssistant: "
    )


def test_the_prompt_of_a_conversation_that_ends_with_a_question_is_all_of_it(causal):
    assert "And {{ you }}?" in causal.prompt({"messages": TURNS[:4]})
    assert causal.answer({"messages": TURNS[:4]}) == ""


def test_an_empty_answer_within_a_conversation_is_not_learnt(causal):
    turns = [*TURNS[:2], {"role": "assistant", "content": ""}, *TURNS[3:]]
    [item] = causal.encode([{"messages": turns}], 256)
    assert causal.tokenizer.decode(item["labels"][item["labels"] != IGNORED]) == "Still a model.</s>"


def test_no_start_token_is_put_before_a_chat_template_that_has_none(causal):
    causal.tokenizer.chat_template = CHATML.replace("{{ bos_token }}", "")
    [item] = causal.encode([{"messages": TURNS}], 256)
    assert causal.tokenizer.bos_token_id not in item["input_ids"]


THINKS = (  # as Qwen3 does: an empty thought in the last answer only
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_where_the_template_rewrites_earlier_turns_every_answer_is_learnt(causal):
    causal.tokenizer.chat_template = THINKS
    [item] = causal.encode([{"messages": TURNS}], 256)
    learnt = causal.tokenizer.decode(item["labels"][item["labels"] != IGNORED])
    assert learnt == "A model.</s><think></think>Still a model.</s>"
    assert "shortened" not in item
    assert causal.answer({"messages": TURNS}) == "<think></think>Still a model."  # what a perfect model writes


def test_a_conversation_that_the_template_refuses_is_dropped_with_its_reason(causal):
    causal.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    )
    good, bad = causal.encode([{"messages": TURNS[1:]}, {"messages": TURNS}], 256)
    assert isinstance(good, dict)
    assert bad == "refused by the chat template: no system turn"
    assert causal.answer({"messages": TURNS}) == ""


def test_ids_of_a_conversation_are_those_of_the_chat_template(causal):
    causal.tokenizer.chat_template = CHATML
    [item] = causal.encode([{"messages": TURNS}], 256)
    own = causal.tokenizer.apply_chat_template(TURNS, tokenize=True, return_dict=False)
    assert item["input_ids"].tolist() == own


def test_prompts_of_training_are_those_of_generation(causal):
    example = {"prompt": "Say yes", "completion": "yes"}
    [item] = causal.encode([example], 64)
    served = SegmentEncoder(causal.tokenizer).ids(causal.prompt(example))
    assert item["input_ids"][: len(served)].tolist() == served


def test_a_tokenizer_without_offsets_is_refused(monkeypatch):
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(ValueError, match="gives no character offsets"):
        load_tokenizer("tiny-clm")
