"""Of a conversation all that the assistant says is learnt, by any chat template, and the text is that of the template."""

import json

import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from lit_fm.backbone import load_tokenizer
from lit_fm.data.chat import chat_segments, chat_text, last_answer, turn_end
from lit_fm.data.segments import SegmentEncoder

ASK = "{% if add_generation_prompt %}"
CALLS = (
    '{% for call in m.tool_calls or [] %}{{ \'\n<tool_call>\n\' }}{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}{{ '\n</tool_call>' }}{% endfor %}"
)
CHATML = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{{ tools | tojson }}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content }}" + CALLS + "{{ '<|im_end|>\n' }}"
    "{% endfor %}" + ASK + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (  # as Llama 2 and Mistral: nothing asks for an answer, turns must alternate
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ '\n\n' }}"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    + ASK + "<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}{% endif %}"
)  # fmt: skip
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}{{ '\n' }}"
    "{{ m.content | trim }}<end_of_turn>{{ '\n' }}{% endfor %}" + ASK + "<start_of_turn>model{{ '\n' }}{% endif %}"
)
ZEPHYR = (  # asks only behind a last turn
    "{% for m in messages %}<|{{ m.role }}|>{{ '\n' + m.content + eos_token + '\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
THINKING = (  # as Qwen3: thoughts before the last question are left out, an empty one is put into the last answer
    "{% set ns = namespace(asked=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% set said = (m.content or '').split('</think>')[-1].lstrip('\n') %}"
    "{% set parts = (m.content or '').split('</think>') %}{% set thought = parts[0].split('<think>')[-1].strip() %}"
    "{% if loop.index0 > ns.asked and (loop.last or parts | length > 1) %}"
    "<think>{{ '\n' + (thought if parts | length > 1 else '') + '\n' }}</think>{{ '\n\n' }}"
    "{% endif %}{{ said }}" + CALLS + "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    + ASK + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    + ASK + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
MARKED_SHORT = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
ENDS_ONCE = (  # the end token behind the whole conversation alone
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content }}{% if loop.last %}{{ eos_token }}{% else %}"
    "{{ '\n\n' }}{% endif %}{% endfor %}" + ASK + "{{ '\n\n### assistant:\n' }}{% endif %}"
)
REASONER = CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}")
ENDS_TWICE = (  # as Phi 3: an end token behind each turn, and one more where no answer is asked for
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    + ASK + "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)  # fmt: skip
FORGETS = (  # as DeepSeek R1: asks with an opened thought, writes none
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>' }}{{ m.content.split('</think>')[-1] }}"
    "{{ eos_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    + ASK + "{{ '<|im_start|><think>\n' }}{% endif %}"
)  # fmt: skip
MARKED_IN_PARTS = MARKED.replace("<|im_end|>{% endg", "{% endgeneration %}{% generation %}<|im_end|>{% endg")
NAMES_AGAIN = THINKING.replace("{% else %}{{ m", "{% elif m.role == 'tool' %}book: {{ m.content }}{% else %}{{ m")
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPECIAL += ["<start_of_turn>", "<end_of_turn>"]
# The template, what stands before and behind an answer that is learnt, and whether it takes any order of any roles.
TEMPLATES = {
    "plain": (None, "", "</s>", True),
    "chatml": (CHATML, "", "<|im_end|>", True),
    "inst": (INST, " ", " </s>", False),
    "llama3": (LLAMA3, "", "<|eot_id|>", True),
    "gemma": (GEMMA, "", "<end_of_turn>", False),
    "zephyr": (ZEPHYR, "", "</s>", True),
    "marked": (MARKED, "", "<|im_end|>", True),
    "marked in parts": (MARKED_IN_PARTS, "", "<|im_end|>", True),
    "ends twice": (ENDS_TWICE, "", "<|im_end|>", True),
    "forgets": (FORGETS, "", "</s>", True),
    "marked short": (MARKED_SHORT, "", "<|im_end|>", True),
    "reasoner": (REASONER, "", "<|im_end|>", True),
    "thinking": (THINKING, "", "<|im_end|>", True),
}
TRIMS = {"inst", "llama3", "gemma"}


@pytest.fixture(scope="module")
def tokenizer():
    made = load_tokenizer("tiny-clm")
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    return made


def turn(role, content, *calls):
    made = {"role": role, "content": content}
    functions = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
    return {**made, "tool_calls": functions} if calls else made


def learnt(segments):
    return [text for text, is_learnt in segments if is_learnt]


def check(messages, tokenizer, tools=None):
    """The segments, whose text and ids are those that the tokenizer's own template gives."""
    segments = chat_segments(messages, tokenizer, tools)
    text = "".join(text for text, _ in segments)
    assert text == chat_text(messages, tokenizer, tools=tools)
    [(ids, is_learnt)] = SegmentEncoder(tokenizer)([segments], [True])
    if tokenizer.chat_template:
        whole = [{**m, "content": m["content"] or ""} if not m.get("tool_calls") else m for m in messages]
        assert text == tokenizer.apply_chat_template(whole, tools, tokenize=False)
        assert ids.tolist() == tokenizer.apply_chat_template(whole, tools, return_dict=False)
    assert tokenizer.decode(ids[is_learnt]) == "".join(learnt(segments))
    return segments


CONTENT = st.text(alphabet="ab yes:.\n\t {}%<>|#é東🙂", max_size=16)
ALTERNATING = st.lists(CONTENT.filter(str.strip), min_size=2, max_size=7).map(
    lambda texts: [turn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
)
ROLES = st.sampled_from(["user", "assistant", "assistant", "tool", "function"])
ANY = st.builds(
    lambda first, turns: [*first, turn("user", "q"), *turns],
    st.lists(CONTENT.map(lambda text: turn("system", text)), max_size=1),
    st.lists(st.builds(turn, ROLES, st.none() | CONTENT), min_size=1, max_size=7),
)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_turn_of_the_assistant_is_learnt_with_its_end_and_nothing_else(tokenizer, name, data):
    tokenizer.chat_template, before, behind, free = TEMPLATES[name]
    messages = data.draw(ANY if free else ALTERNATING)
    said = [m["content"] for m in messages if m["role"] == "assistant" and (m["content"] or "").strip()]
    said = [text.strip() if name in TRIMS else text for text in said]
    wanted = [before + text + behind for text in said]
    found = learnt(check(messages, tokenizer))
    if name == "thinking":
        found = [text.removeprefix("<think>\n\n</think>\n\n") for text in found]
        wanted = [text.lstrip("\n") for text in wanted]
    assert found == wanted


def test_thoughts_that_the_template_leaves_out_are_not_learnt_and_all_the_rest_is(tokenizer):
    tokenizer.chat_template = THINKING
    thought = "<think>\nhm\n</think>\n\n"
    messages = [
        turn("user", "a"), turn("assistant", thought + "b"), turn("user", "c"), turn("assistant", thought),
        turn("user", "d"), turn("assistant", thought + "e"), turn("tool", "f"), turn("assistant", "g"),
    ]  # fmt: skip
    end = "<|im_end|>"
    assert learnt(check(messages, tokenizer)) == [f"b{end}", f"{thought}e{end}", f"<think>\n\n</think>\n\ng{end}"]


def test_a_thought_that_is_asked_for_and_left_out_is_not_learnt(tokenizer):
    tokenizer.chat_template = FORGETS
    messages = [
        turn("user", "a"),
        turn("assistant", "<think>\nhm\n</think>b"),
        turn("user", "c"),
        turn("assistant", "d"),
    ]
    assert learnt(check(messages, tokenizer)) == ["b</s>", "d</s>"]


CALL = ("book", {"day": "2 May", "seats": [1, 2], "note": "<|im_end"})
WRITTEN = (
    '\n<tool_call>\n{"name": "book", "arguments": {"day": "2 May", "seats": [1, 2], "note": "<|im_end"}}\n</tool_call>'
)
TOOLS = [{"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize("template", [CHATML, THINKING, NAMES_AGAIN], ids=["chatml", "thinking", "names again"])
@pytest.mark.parametrize("content", [None, "", "I book it."])
def test_what_the_template_writes_for_a_tool_call_is_learnt(tokenizer, template, content):
    tokenizer.chat_template = template
    messages = [
        turn("user", "Book a table."), turn("assistant", content, CALL), turn("tool", '{"done": true}'),
        turn("assistant", "Done."), turn("user", "Twice!"), turn("assistant", content, CALL, CALL),
    ]  # fmt: skip
    segments = check(messages, tokenizer, TOOLS)
    said, empty = content or "", "" if template == CHATML else "<think>\n\n</think>\n\n"
    first, second, third = learnt(segments)
    assert first == f"{said}{WRITTEN}<|im_end|>"
    assert second == "Done.<|im_end|>"
    assert third == f"{empty}{said}{WRITTEN}{WRITTEN}<|im_end|>" == last_answer(messages, tokenizer, TOOLS)
    assert template != CHATML or '"name": "book"' in segments[0][0]


def test_the_plain_format_writes_tools_and_their_calls(tokenizer):
    tokenizer.chat_template = None
    messages = [turn("user", "Book."), turn("assistant", None, CALL), turn("tool", "ok"), turn("assistant", "Done.")]
    segments = check(messages, tokenizer, TOOLS)
    call, done = learnt(segments)
    assert json.loads(call.removesuffix("</s>").strip()) == [{"name": CALL[0], "arguments": CALL[1]}]
    assert done == "Done.</s>"
    assert segments[0][0] == f"<s>Tools: {json.dumps(TOOLS)}\nUser: Book.\nAssistant: "
    assert segments[2][0] == "\nTool: ok\nAssistant: "


def test_a_greeting_before_any_question_is_learnt(tokenizer):
    messages = [turn("assistant", "Hello!"), turn("user", "Hi"), turn("assistant", "Yes?")]
    for template in (None, CHATML, ZEPHYR, LLAMA3, MARKED):
        tokenizer.chat_template = template
        end = turn_end(tokenizer)
        assert learnt(check(messages, tokenizer)) == [f"Hello!{end}", f"Yes?{end}"]


@pytest.mark.parametrize("template", [CHATML, THINKING, MARKED], ids=["chatml", "thinking", "marked"])
def test_an_end_token_in_what_is_said_does_not_end_it(tokenizer, template):
    tokenizer.chat_template = template
    messages = [
        turn("user", "a"),
        turn("assistant", "b<|im_end|> c"),
        turn("user", "d"),
        turn("assistant", "<|im_end|>e"),
    ]
    found = [text.removeprefix("<think>\n\n</think>\n\n") for text in learnt(check(messages, tokenizer))]
    assert found == ["b<|im_end|> c<|im_end|>", "<|im_end|>e<|im_end|>"]


def test_a_turn_without_an_end_token_is_learnt_without_one(tokenizer):
    tokenizer.chat_template = ENDS_ONCE
    messages = [turn("user", "a"), turn("assistant", "b "), turn("user", "c"), turn("assistant", "d")]
    assert learnt(check(messages, tokenizer)) == ["b ", "d</s>"]


@pytest.mark.parametrize(
    ("template", "messages", "why"),
    [
        (INST, [turn("user", "a"), turn("user", "b")], "roles must alternate"),
        (GEMMA, [turn("system", "a"), turn("user", "b"), turn("assistant", "c")], "no system role"),
        (ZEPHYR, [turn("user", "a"), turn("assistant", None, CALL)], "content"),
        (LLAMA3, [turn("user", "a"), turn("assistant", "b", CALL)], "leaves out a tool call"),
        ("{{ messages[-1].content }}", [turn("assistant", "a"), turn("user", "b")], "leaves out a turn"),
        ("{{ messages + 1 }}", [turn("user", "b")], "list"),
        (CHATML.replace("m.content }}", "m.content | length }}"), [turn("assistant", "a")], "cannot be followed"),
    ],
)
def test_what_a_template_cannot_write_is_refused_with_the_reason(tokenizer, template, messages, why):
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match=why):
        chat_segments(messages, tokenizer)


def test_a_conversation_without_an_answer_has_nothing_to_learn(tokenizer):
    tokenizer.chat_template = CHATML
    messages = [turn("user", "a"), turn("assistant", " \n"), turn("assistant", None)]
    assert not learnt(check(messages, tokenizer))
    assert last_answer(messages, tokenizer) == last_answer(messages[:1], tokenizer) == ""


def test_the_template_is_rendered_at_most_twice_a_turn_and_once_where_it_marks_what_is_generated(
    tokenizer, monkeypatch
):
    from transformers.utils import chat_template_utils

    count = 0
    real = chat_template_utils.render_jinja_template

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(chat_template_utils, "render_jinja_template", counted)
    monkeypatch.setattr("transformers.tokenization_utils_base.render_jinja_template", counted)
    messages = [turn(("user", "assistant")[i % 2], "a") for i in range(40)]
    for template, most in ((MARKED, 1), (CHATML, 40), (THINKING, 41)):
        tokenizer.chat_template, count = template, 0
        assert len(learnt(chat_segments(messages, tokenizer))) == 20
        assert 0 < count <= most


ROLE = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool", "system": "system"}


def of_share_gpt(turns):
    return [turn(ROLE[t["from"]], t["value"]) for t in turns]


CHATS = {
    "fastchat_dummy_conversation": (500, lambda row: of_share_gpt(row["conversations"])),
    "glaive_toolcall_en_demo": (300, lambda row: of_share_gpt(row["conversations"])),
    "dpo_en_demo": (300, lambda row: of_share_gpt([*row["conversations"], row["chosen"]])),
    "kto_en_demo": (300, lambda row: row["messages"]),
    "identity": (91, lambda row: [turn("user", row["instruction"]), turn("assistant", row["output"])]),
    "litgpt_dolly": (12, lambda row: [turn("user", row["instruction"]), turn("assistant", row["response"])]),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
@pytest.mark.parametrize("template", [CHATML, THINKING, None], ids=["chatml", "thinking", "plain"])
@pytest.mark.parametrize("name", CHATS)
def test_of_real_conversations_the_assistants_texts_are_learnt_exactly(tokenizer, name, template):
    tokenizer.chat_template = template
    count, convert = CHATS[name]
    rows = json.loads((SHARED / "chat" / f"{name}.json").read_text(encoding="utf-8"))
    assert len(rows) == count
    for row in rows[:: 1 if template == CHATML else 5]:
        messages = convert(row)
        said = [m["content"] for m in messages if m["role"] == "assistant"]
        found = learnt(check(messages, tokenizer))
        end = turn_end(tokenizer)
        if template == THINKING:
            found = [text.removeprefix("<think>\n\n</think>\n\n") for text in found]
        assert found == [text + end for text in said if text.strip()]
