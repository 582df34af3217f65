"""Rows from every kind of file and place, and every kind of row as an example."""

import csv
import gzip
import json
import os
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from conftest import ROWS, SHARED, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_fm.data import examples as kinds
from lit_fm.data import smallworld
from lit_fm.data.columns import EMPTY
from lit_fm.data.conversation import UNANSWERED, UNWANTED
from lit_fm.data.examples import FIELDS, kind_of
from lit_fm.data.files import count_rows, iterate_file
from lit_fm.data.rows import fingerprint_of, hub, splits, take
from lit_fm.data.templates import Templates

ALL = [".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz", ".JSONL"]


def examples(rows, *args, **kwargs):
    kind, found = kinds.examples(enumerate(rows, 1), *args, **kwargs)
    return kind, (example for _, example in found)


def read(source, **kwargs):
    return {split: list(rows()) for split, rows in splits(str(source), **kwargs).items()}


def made(rows, **kwargs):
    return list(examples(rows, **kwargs)[1])


# Files


@pytest.mark.parametrize("suffix", ALL)
def test_every_format_gives_the_same_rows_as_often_as_they_are_asked_for(tmp_path, suffix):
    found = splits(str(write_rows(tmp_path, suffix)))
    assert [list(found["train"]()) for _ in range(2)] == [ROWS, ROWS]


@pytest.mark.parametrize(
    "content",
    [
        {"0": {"a": 1}, "1": {"a": 2}},
        {"version": "1.0", "about": [], "data": [{"id": "0", "a": 1}, {"id": "1", "a": 2}]},
        [{"id": "0", "a": 1}, {"id": "1", "a": 2}],
    ],
)
def test_json_holds_rows_in_several_ways(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read(tmp_path / "a.json") == {"train": [{"id": "0", "a": 1}, {"id": "1", "a": 2}]}


def test_json_lines_under_the_name_of_json_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert read(tmp_path / "a.json") == {"train": [{"a": 1}, {"a": 2}]}


def test_a_task_of_natural_instructions_gives_a_row_for_each_instance(tmp_path):
    task = {"Definition": ["Add."], "Positive Examples": [{"input": "1"}], "Categories": ["Maths"]}
    task["Instances"] = [{"input": "1 1", "output": ["2", "two"]}, {"id": "x", "input": "2 2", "output": ["4"]}]
    (tmp_path / "a.json").write_text(json.dumps(task))
    rows = read(tmp_path / "a.json")["train"]
    assert [row["id"] for row in rows] == ["1", "x"]
    assert examples(rows)[0].startswith("definition/input/output; definition: lists joined")
    first = {"prompt": "Add.\n\n1 1", "completion": "2", "references": ["2", "two"]}
    assert made(rows)[0] == first


def test_quotes_can_be_characters_like_any_other(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('name\tsize\n"big" one\t5"\n"\t"\n')
    with pytest.raises(ValueError, match=r"line 2.*--data\.stray_quotes true"):
        read(path)
    rows = [{"name": '"big" one', "size": '5"'}, {"name": '"', "size": '"'}]
    assert read(path, stray_quotes=True) == {"train": rows}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\n\r\t \ufeff\u2028'))] * 2)
    )
)
def test_any_text_comes_back_from_a_file(tmp_path_factory, suffix, texts):
    rows = [{"first": first, "second": second} for first, second in texts]
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, ["first", "second"], delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    assert list(iterate_file(path)) == rows


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.gz"])
def test_a_file_larger_than_memory_is_read_a_row_at_a_time(tmp_path, suffix):
    """30 MB of them cost less than 8."""
    row = {"prompt": "p" * 1000, "completion": "c" * 1000}
    path, n = tmp_path / f"a{suffix}", 15_000
    if suffix == ".parquet":
        write_rows(tmp_path, suffix, [row] * n, "a")
    else:
        line = json.dumps(row) if "json" in suffix else ",".join(row.values())
        with gzip.open(path, "wt", 1) if suffix.endswith(".gz") else path.open("w") as file:
            file.write("" if "json" in suffix else "prompt,completion\n")
            file.writelines(line + "\n" for _ in range(n))
    examples(splits(str(path))["train"]())  # imports what it needs
    tracemalloc.start()
    assert sum(1 for _ in examples(splits(str(path))["train"]())[1]) == n
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "p", "completion": "c"}\n{"prompt": \n', "line 2 is not JSON"),
        ("a.jsonl", "\n[1, 2]\n", "line 2: expected an object"),
        ("a.jsonl", '{"a": "\\ud83d\\ude00"}\n{"a": "\\uD83D"}\n', "line 2 holds half a character"),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("a.json", '[{"prompt": "p"},\n{"prompt" "q"}]', "line 2 is not JSON"),
        ("a.json", '[{"prompt": "p"}, 5]', "row 2: expected an object"),
        ("a.json", '"text"', "holds one str"),
        ("a.json", '{"a": [{"b": 1}], "c": [{"b": 1}]}', r"the lists \['a', 'c'\]: which are the rows"),
        ("a.json", "", "line 1 is not JSON"),
        ("a.csv", "prompt,completion\na,b\nc\n", "line 3: not as many cells"),
        ("a.csv", "prompt,completion\na,b,c\n", "line 2: not as many cells"),
        ("a.csv", 'prompt,completion\n"a\nb",c\n"d\ne"\n', "line 4: not as many cells"),
        ("a.csv", "prompt,prompt\na,b\n", "names \\['prompt'\\] twice"),
        ("a.csv", 'a,b\n"x" y,z\n', "line 2: .*write quotes in quoted cells twice"),
        ("a.csv", 'a,b\nx,"y\nz\n', "line 2: unexpected end"),
        ("a.parquet", "not parquet", "not a Parquet file"),
        ("a.jsonl.gz", "not packed", "no whole gzip file"),
        ("a.txt", "hello", "convert it to one of them"),
    ],
)
def test_a_broken_file_names_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_file_that_is_not_utf8_says_in_which_line(tmp_path, suffix):
    content = b'{"prompt": "cafe"}\n{"prompt": "caf\xe9"}\n'
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    with pytest.raises(ValueError, match="line 2 is not UTF-8"):
        read(tmp_path / f"a{suffix}")


def test_a_gzip_file_that_was_cut_off_is_no_shorter_file(tmp_path):
    path = write_rows(tmp_path, ".jsonl.gz", ROWS * 100)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="no whole gzip file"):
        read(path)


# Places


def test_files_of_a_folder_are_splits_by_their_names(tmp_path):
    for stem, n in (("train-00000", 5), ("Train_data", 4), ("valid", 3), ("test_sft-00000-of-00001", 2)):
        write_rows(tmp_path, ".jsonl", ROWS[:n], stem)
    counts = {"train": 9, "validation": 3, "test": 2}
    assert {split: len(rows) for split, rows in read(tmp_path).items()} == counts
    assert {split: len(rows) for split, rows in read(tmp_path / "*.json*").items()} == counts
    assert {split: len(rows) for split, rows in read(tmp_path / "[tT]rain*").items()} == {"train": 9}


def test_folders_of_a_folder_are_splits_by_their_names(tmp_path):
    for folder, n in (("train", 5), ("dev", 3), ("test", 2), (".cache", 7)):
        (tmp_path / folder).mkdir()
        write_rows(tmp_path / folder, ".jsonl", ROWS[:n], "part-0")
    counts = {"train": 5, "validation": 3, "test": 2}
    assert {split: len(rows) for split, rows in read(tmp_path).items()} == counts
    assert {split: len(rows) for split, rows in read(tmp_path / "*" / "part-*").items()} == counts
    assert read(tmp_path / "test" / "*.jsonl") == {"train": ROWS[:2]}  # the folder is not of the pattern


def test_a_file_of_a_folder_whose_split_is_not_known_is_named(tmp_path):
    for stem in ("train", "more"):
        write_rows(tmp_path, ".jsonl", ROWS, stem)
    for source in (tmp_path, tmp_path / "*.jsonl"):
        with pytest.raises(ValueError, match=r"which split is more\.jsonl"):
            read(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}/trian.jsonl", r"did you mean 'train.jsonl'"),
        ("{}/*.csv", "has no .*file"),
        ("{}/none", "there is no file or folder"),
        ("memory://none/a.jsonl", "there is no file memory://none/a.jsonl"),
    ],
)
def test_what_is_not_there_is_one_clear_error(tmp_path, source, message):
    write_rows(tmp_path, ".jsonl")
    with pytest.raises(FileNotFoundError, match=message):
        read(source.format(tmp_path))


def test_a_remote_file_is_copied_once_and_again_when_it_changes(tmp_path, monkeypatch):
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setenv("LIT_FM_CACHE", str(tmp_path / "cache"))
    fetched, get_file = [], MemoryFileSystem.get_file
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda *a, **k: fetched.append(a[1]) or get_file(*a, **k))
    url = "memory://bucket/some/train.csv.gz"
    for count in (3, 5):
        fsspec.filesystem("memory").pipe(
            "/bucket/some/train.csv.gz", write_rows(tmp_path, ".csv.gz", ROWS[:count]).read_bytes()
        )
        assert [read(url) for _ in range(2)] == [{"train": ROWS[:count]}] * 2
    assert len(fetched) == 2
    assert fingerprint_of(url) == fingerprint_of(url)
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == ["train.csv.gz"] * 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://example.org/a.jsonl", "use https://"),
        ("https://example.org/page", "convert it"),
        ("nothing://bucket/a.jsonl", "could not be read: Protocol not known"),
    ],
)
def test_an_address_that_cannot_be_read_is_one_clear_error(source, message):
    with pytest.raises(ValueError, match=message):
        read(source)


@pytest.mark.parametrize("source", ["memory://rows", "memory://rows/*.jsonl", "memory://rows/**/*.jsonl"])
def test_a_folder_and_a_pattern_on_another_machine_are_read_by_split(source):
    import fsspec

    system = fsspec.filesystem("memory")
    for name in ("train-1", "train-2", "validation"):
        system.pipe(f"/rows/{name}.jsonl", json.dumps({"prompt": name, "completion": "c"}).encode() + b"\n")
    system.pipe("/rows/README.md", b"x")
    found = {split: [row["prompt"] for row in rows()] for split, rows in splits(source).items()}
    assert found == {"train": ["train-1", "train-2"], "validation": ["validation"]}


def test_a_folder_on_another_machine_without_rows_is_named():
    import fsspec

    fsspec.filesystem("memory").pipe("/nothing/a", b"x")
    with pytest.raises(FileNotFoundError, match=r"memory://nothing has no \.csv"):
        splits("memory://nothing")


def test_a_driver_that_is_missing_is_named(monkeypatch):
    from fsspec.registry import known_implementations

    monkeypatch.setitem(known_implementations, "far", {"class": "far.Away", "err": "Install farfs"})
    with pytest.raises(ValueError, match="a driver that is not installed: Install farfs"):
        read("far://bucket/a.jsonl")


def test_a_data_set_of_hugging_face_gives_its_splits_and_names_those_it_leaves_out(tmp_path, caplog):
    """By the same call as for an id on the hub."""
    for split in ("train", "dev", "extra"):
        write_rows(tmp_path, ".jsonl", ROWS[:4], split)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: some\n  data_files:\n"
        + "".join(f"  - split: {s}\n    path: {s}.jsonl\n" for s in ("train", "dev", "extra"))
        + "- config_name: other\n  data_files: dev.jsonl\n---\n"
    )
    found = hub(f"{tmp_path}:some")
    assert {split: list(rows()) for split, rows in found.items()} == {"train": ROWS[:4], "validation": ROWS[:4]}
    assert "['extra'] are left out" in caplog.text


def test_smallworld_gives_as_many_rows_as_are_asked_for():
    found = read("smallworld/sentiment", size=7, seed=3)
    assert found["train"] == smallworld.rows("sentiment", "train", 7, 3)
    assert len(found["test"]) == smallworld.SIZES["test"]


def test_a_fingerprint_tells_content_and_not_time(tmp_path):
    paths = [write_rows(tmp_path, suffix) for suffix in (".jsonl", ".csv")]
    before = fingerprint_of(str(tmp_path))
    for path in paths:
        os.utime(path, (0, 0))
    assert fingerprint_of(str(tmp_path)) == before == json.loads(json.dumps(before))
    assert fingerprint_of(str(tmp_path / "*")) == before
    changed = paths[0].read_bytes().replace(b"say 7", b"say 8")
    assert len(changed) == paths[0].stat().st_size
    paths[0].write_bytes(changed)
    assert fingerprint_of(str(tmp_path)) != before


# Kinds


@pytest.mark.parametrize(
    ("row", "kind", "prompt", "answer"),
    [
        ({"prompt": "p", "completion": "c"}, "prompt/completion", "p", "c"),
        ({"instruction": "i", "input": "x", "output": "o"}, "instruction/input/output", "i\n\nx", "o"),
        ({"instruction": "i", "input": "", "output": "o"}, "instruction/input/output", "i", "o"),
        ({"instruction": "i", "output": 5}, "instruction/input/output", "i", "5"),
        ({"instruction": "i", "context": None, "response": "r"}, "instruction/context/response", "i", "r"),
        ({"definition": "d", "input": "i", "output": "o"}, "definition/input/output", "d\n\ni", "o"),
        ({"question": "q", "answer": "a", "id": 3}, "question/answer (not used: id)", "q", "a"),
        ({"input": "i", "output": True}, "input/output", "i", "true"),
        ({"input": 2.5, "target": "t"}, "input/target", "2.5", "t"),
        ({"prompt": "p", "completion": float("nan")}, "prompt/completion", "p", ""),
        (
            {"prompt": ["p", 1], "completion": "c"},
            "prompt/completion; prompt: lists joined by line breaks",
            "p\n1",
            "c",
        ),
        (
            {"prompt": "p", "chosen": "c", "rejected": "r"},
            "prompt/chosen/rejected: the chosen answer is learnt",
            "p",
            "c",
        ),
    ],
)
def test_kinds_of_rows_are_recognised(row, kind, prompt, answer):
    assert examples([row])[0] == kind
    assert made([row]) == [{"prompt": prompt, "completion": answer}]


def test_several_right_answers_are_references():
    row = {"question": "q", "answer": ["a", 2], "choices": ["a", 2, "b"], "task": "t"}
    kind, found = examples([row, {"question": "q", "answer": [], "choices": []}])
    assert kind == "question/answer; answer: the first of a list is learnt, all are right"
    first = {"prompt": "q", "completion": "a", "references": ["a", "2"], "choices": ["a", "2", "b"], "task": "t"}
    assert list(found) == [first, {"prompt": "q", "completion": "", "references": [], "choices": []}]


def test_a_kind_can_be_overruled():
    rows = [{"prompt": "p", "completion": "c", "question": "q", "answer": "a"}]
    assert examples(rows)[0].startswith("prompt/completion")
    assert made(rows, kind="question/answer") == [{"prompt": "q", "completion": "a"}]
    kept = [{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "label": False}]
    assert made(kept) == [UNWANTED]
    assert made(kept, kind="messages") == [{"messages": kept[0]["messages"]}]


USER, ANSWER = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
HUMAN, GPT = {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("row", "kind", "messages"),
    [
        ({"messages": [USER, ANSWER]}, "messages", [USER, ANSWER]),
        ({"conversations": [HUMAN, GPT]}, "conversations", [USER, ANSWER]),
        ({"conversations": [USER, ANSWER], "id": 1}, "conversations (not used: id)", [USER, ANSWER]),
        (
            {"conversations": [HUMAN, GPT], "system": "s"},
            "conversations",
            [{"role": "system", "content": "s"}, USER, ANSWER],
        ),
        ({"conversations": [HUMAN, GPT], "system": ""}, "conversations", [USER, ANSWER]),
        (
            {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
            "conversations/chosen/rejected: the chosen answer is learnt",
            [USER, ANSWER],
        ),
        (
            {"prompt": "u", "chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
            "prompt/chosen/rejected: the chosen answer is learnt",
            [USER, ANSWER],
        ),
        (
            {"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]},
            "prompt/chosen/rejected: the chosen answer is learnt",
            [USER, ANSWER],
        ),
        (
            {"messages": [USER, ANSWER], "label": True},
            "messages/label: answers with the label true are learnt",
            [USER, ANSWER],
        ),
        ({"messages": [USER, ANSWER], "label": "x"}, "messages (not used: label)", [USER, ANSWER]),
    ],
)
def test_conversations_are_recognised(row, kind, messages):
    assert examples([row])[0] == kind
    assert made([row]) == [{"messages": messages}]


@pytest.mark.parametrize("arguments", [{"x": 1}, '{"x": 1}'])
@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL["function"]])])
def test_calls_of_tools_are_the_same_from_sharegpt_and_from_openai(tools, arguments):
    call = json.dumps({"name": "f", "arguments": arguments})
    turns = [HUMAN, {"from": "function_call", "value": call}, {"from": "observation", "value": "2"}, GPT]
    asked = {"role": "assistant", "content": None, "name": None}
    calls = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]}
    messages = [USER, {**asked, **calls}, {"role": "tool", "tool_call_id": "1", "content": "2"}, ANSWER]
    [one] = made([{"conversations": turns, "tools": tools}])
    [other] = made([{"messages": messages, "tools": tools}])
    assert one["tools"] == other["tools"] == [TOOL]
    assert one["messages"] == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "2"},
        ANSWER,
    ]
    assert other["messages"] == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", **CALL}]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        ANSWER,
    ]


@pytest.mark.parametrize("tools", ["[]", "", None, []])
def test_no_tools_are_none(tools):
    assert made([{"messages": [USER, ANSWER], "tools": tools}]) == [{"messages": [USER, ANSWER]}]


def test_a_null_turn_is_an_empty_one_and_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]}
    assert [turn["content"] for turn in made([row])[0]["messages"]] == ["ab", ""]


def test_a_conversation_without_an_answer_says_so_unless_it_is_to_be_answered():
    rows = [{"messages": [USER, ANSWER]}, {"messages": [USER]}]
    assert made(rows) == [{"messages": [USER, ANSWER]}, UNANSWERED]
    assert made(rows, answered=False)[1] == {"messages": [USER]}


def test_words_and_tags_are_a_kind():
    row = {"tokens": ["a", "b"], "tags": [0, 1]}
    assert made([row]) == [{**row, "prompt": "a b"}]
    rows = [{"prompt": "p", "completion": "c", "words": ["a", "b"], "classes": [0, 1]}]
    assert made(rows, columns={"tokens": "words", "tags": "classes"}) == [{**row, "prompt": "a b"}]


@pytest.mark.parametrize(
    ("rows", "kwargs", "message"),
    [
        ([{"text": "t"}], {}, "--data.columns.prompt FIELD"),
        ([{"text": "t"}], {"columns": {"prompt": "txt"}}, "row 1 has no field 'txt' .*did you mean 'text'"),
        ([{"prompt": "p", "completion": "c"}, {"prompt": "p"}], {}, "row 2 has no field 'completion'"),
        ([{"prompt": "p", "completion": {"c": 1}}], {}, "row 1: 'completion' holds a dict"),
        ([{"prompt": [{"p": 1}], "completion": "c"}], {}, "row 1: 'prompt' holds a dict"),
        ([{"prompt": "p", "completion": b"c"}], {}, "row 1: 'completion' holds a bytes"),
        ([{"prompt": "p", "completion": "c", "choices": "c"}], {}, "row 1: 'choices' is c, expected a list"),
        ([{"prompt": "p", "completion": "c"}], {"columns": {"completon": "p"}}, "did you mean 'completion'"),
        ([{"prompt": "p", "completion": "c"}], {"kind": "prompt/completon"}, "did you mean 'prompt/completion'"),
        ([{"prompt": "p", "completion": "c"}], {"kind": "messages"}, "row 1: expected messages"),
        ([{"a": "b"}], {"kind": "messages", "columns": {"prompt": "a"}}, "'prompt' is no field of messages"),
        ([{"a": "b"}], {"kind": "messages", "templates": "{{a}} ||| {{a}}"}, "leave one of them out"),
        ([{"messages": [], "a": "b"}], {"columns": {"prompt": "a"}}, "no known kind has those"),
        ([{"a": [1], "b": [2]}], {"columns": {"prompt": "a[].x", "completion": "b[].x"}}, "behind one of them"),
        ([{"a": 5}], {"columns": {"prompt": "a[].x"}}, "row 1: 'a' is 5, expected a list"),
        ([{"a": [{"b": [1]}]}], {"columns": {"prompt": "a.1.b"}}, "row 1 has no field 'a.1.b' for 'prompt': known: 0"),
        ([{"messages": "hello"}], {}, "row 1: expected messages"),
        ([{"messages": [USER]}, {"messages": [{"content": "x"}]}], {}, "row 2: expected messages"),
        ([{"messages": [{"role": "user", "content": [{"text": "x"}]}]}], {}, "row 1: a message's content"),
        (
            [{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}],
            {},
            "a part of type 'image_url', expected text",
        ),
        ([{"messages": [{"role": "asistant", "content": ""}]}], {}, "a turn of 'asistant': did you mean 'assistant'"),
        ([{"conversations": [{"from": "function_call", "value": "f(x)"}]}], {}, "row 1: a function call is not JSON"),
        ([{"conversations": [{"from": "function_call", "value": "[5]"}]}], {}, "row 1: a call of a tool is 5"),
        (
            [{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]}],
            {},
            "row 1: the arguments of 'f' are",
        ),
        ([{"messages": [USER, ANSWER], "tools": '{"name": "f"}'}], {}, "row 1: 'tools' is"),
        ([{"messages": [USER, ANSWER], "tools": "f"}], {}, "row 1: 'tools' is not JSON"),
        (
            [{"messages": [{"role": "system", "content": "x"}, USER, ANSWER], "system": "y"}],
            {},
            "row 1: 'system' and a turn",
        ),
        ([{"messages": [USER, ANSWER], "label": b} for b in (True, None)], {}, "row 2: 'label' is None"),
    ],
)
def test_rows_that_do_not_fit_are_one_clear_error(rows, kwargs, message):
    with pytest.raises(ValueError, match=message):
        made(rows, **kwargs)


def test_rows_to_predict_need_no_answer():
    assert kind_of({"question": "q"}, answered=False) == "question/answer"
    assert made([{"question": "q"}], answered=False) == [{"prompt": "q", "completion": ""}]
    columns = {"prompt": "a.b", "completion": "a.c"}
    assert made([{"a": {"b": "p"}}], columns=columns, answered=False) == [{"prompt": "p", "completion": ""}]


@pytest.mark.parametrize("kind", FIELDS)
def test_no_rows_are_no_examples(kind):
    assert made([], kind=kind) == []


# Columns


def test_columns_name_the_fields_of_a_known_kind_by_paths():
    row = {"a.b": "dot", "a": {"b": ["x", {"c": "deep"}]}, "more": 1}
    kind, found = examples([row], columns={"prompt": "a.b", "completion": "a.b.1.c"})
    assert (kind, list(found)) == (
        "prompt/completion (not used: more)",
        [{"prompt": "dot", "completion": "deep"}],
    )


def test_each_item_of_a_list_gives_an_example():
    rows = [
        {"qs": [], "text": "none"},
        {"qs": [{"q": "1", "a": {"text": "one"}}, {"q": "2", "a": {"text": "two"}}], "text": "t"},
    ]
    columns = {"question": "qs[].q", "answer": "qs[].a.text"}
    kind, found = examples(rows, columns=columns)
    assert kind == "question/answer (not used: text)"
    assert list(found) == [EMPTY, {"prompt": "1", "completion": "one"}, {"prompt": "2", "completion": "two"}]
    assert made(rows[:1], columns=columns) == [EMPTY]
    asked = made(
        rows, columns={**columns, "shown": "text"}, templates=Templates("{{shown}} {{question}} ||| {{answer}}")
    )
    assert [(e["prompt"], e["completion"]) for e in asked[1:]] == [("t 1", "one"), ("t 2", "two")]


def test_templates_get_the_row_its_number_and_its_split():
    class Given:
        def render(self, row, number, split, answered):
            return {"prompt": f"{row['choices']['a']} {number} {split} {answered}"} if number > 1 else "the first"

    rows = [{"choices": {"a": "x"}, "task": "t"}] * 2
    kind, found = examples(rows, Given(), split="test")
    assert (kind, list(found)) == ("template", ["the first", {"prompt": "x 2 test True", "task": "t"}])


@pytest.mark.parametrize("field", ["prompt/completion", "messages", "conversations"])
def test_answers_that_were_not_wanted_are_left_out(field):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    one = {"prompt": "q", "completion": "a"} if field == "prompt/completion" else {field: turns}
    rows = [{**one, "label": True}, {**one, "label": False}]
    assert examples(rows)[0] == f"{field}/label: answers with the label true are learnt"
    assert [example == UNWANTED for example in made(rows)] == [False, True]
    assert UNWANTED not in made(rows, kind=field)
    with pytest.raises(ValueError, match="row 2: 'label' is None"):
        made([rows[0], {**one, "label": None}])


def test_of_several_answers_an_empty_one_is_none():
    [example] = made([{"question": "q", "answer": [None, "", "x"]}])
    assert (example["completion"], example["references"]) == ("x", ["x"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_they_are_read(tmp_path, end):
    path = tmp_path / "a.jsonl"
    path.write_bytes(end.join(json.dumps({"prompt": f"{i}", "completion": "c"}) for i in range(50)).encode())
    assert count_rows(path) == 50 == len(list(iterate_file(path)))
    rows = splits(str(path))["train"]
    assert [(n, row["prompt"]) for n, row in take(rows, np.array([3, 7, 49]))] == [(3, "3"), (7, "7"), (49, "49")]


# Real data

LEGAL = {"corporate_lobbying": "bill_summary", "oral_argument_question_purpose": "question"}
LEGAL |= {"ucc_v_common_law": "contract"}


def _real():
    """Every file of instruction data: its rows in the manifest, and the columns that it needs."""
    if not SHARED.is_dir():
        return []
    counts = {}
    with (SHARED / "MANIFEST.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            counts[row["file"]] = row["rows"]
    columns = {
        "banking77/train.csv": {"prompt": "text", "completion": "category"},
        "self_instruct/seed_tasks.jsonl": {"input": "instances.0.input", "output": "instances.0.output"},
        "pubmedqa/ori_pqal.json": {"instruction": "QUESTION", "context": "CONTEXTS", "response": "final_decision"},
        "scitldr/train.jsonl": {"prompt": "source", "completion": "target"},
        "tatqa/tatqa_dataset_dev.json": {"prompt": "questions[].question", "completion": "questions[].answer"},
    }
    columns |= {"banking77/test.csv": columns["banking77/train.csv"]}
    columns |= {f"scitldr/{split}.jsonl": columns["scitldr/train.jsonl"] for split in ("dev", "test")}
    columns |= {name: {"prompt": "text", "completion": "answer"} for name in counts if name.endswith("train.tsv")}
    columns |= {f"legalbench/{name}/train.tsv": {"prompt": f, "completion": "answer"} for name, f in LEGAL.items()}
    groups = ("gsm8k", "self_instruct", "t0_rendered", "pubmedqa", "tatqa", "legalbench", "bbh", "banking77", "scitldr")
    skipped = ("README.md", ".txt", "categories.json", "test_ground_truth.json")  # no instruction data
    return [
        pytest.param(name, count, columns.get(name), id=name)
        for name, count in counts.items()
        if name.startswith((*groups, "chat", "natural_instructions")) and not name.endswith(skipped)
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
@pytest.mark.parametrize(("name", "count", "columns"), _real())
def test_real_files_load_with_their_counts(name, count, columns):
    found = made(splits(str(SHARED / name))["train"](), columns=columns)
    left = Counter(example for example in found if isinstance(example, str))
    assert len(found) == int(count.split("/")[-1].split()[0])
    assert left == ({UNWANTED: 150} if "kto" in name else {})
    assert all("messages" in example or example["prompt"] for example in found if not isinstance(example, str))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
def test_what_looks_like_jinja_in_real_data_stays():
    found = made(splits(str(SHARED / "chat" / "identity.json"))["train"]())
    assert "I am {{name}}, an AI assistant developed by {{author}}." in found[0]["completion"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
def test_real_calls_of_tools_are_all_there():
    rows = list(splits(str(SHARED / "chat" / "glaive_toolcall_en_demo.json"))["train"]())
    found = made(rows)
    calls = [turn for example in found for turn in example["messages"] if "tool_calls" in turn]
    assert (len(calls), sum("tools" in example for example in found)) == (211, 191)
    for row, example in zip(rows, found, strict=True):
        told = [turn["value"] for turn in row["conversations"]]
        calls = [t.get("tool_calls", [{}])[0].get("function") for t in example["messages"]]
        again = [
            json.dumps(call, ensure_ascii=False) if call else turn["content"]
            for call, turn in zip(calls, example["messages"], strict=True)
        ]
        assert again == told
