"""Templates give what PromptSource's own pipeline gave, and text of the data is never a template."""

import csv
import json
import re

import pytest
import yaml
from conftest import SHARED

from lit_fm.data.shots import few_shot
from lit_fm.data.templates import NO_TEXT, Templates

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
SOURCE, RENDERED = SHARED / "promptsource", SHARED / "t0_rendered"


def rendered(name):
    rows = [json.loads(line) for line in (RENDERED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["prompt"], row["completion"].removesuffix("<|endoftext|>")) for row in rows]


def fields(name, pattern):
    """What a pattern finds in each prompt of a rendered file, with its answer."""
    return [(*re.search(pattern, prompt, re.DOTALL).groups(), answer) for prompt, answer in rendered(name)]


def paws():
    found = fields("paws/paws_labeled_final_Concatenation", r"Sentence 1: (.*)\nSentence 2: (.*)\nQuestion: Does")
    return [{"sentence1": a, "sentence2": b, "label": ["No", "Yes"].index(label)} for a, b, label in found]


def amazon_polarity():
    found = fields(
        "amazon_polarity/amazon_polarity_Is_this_review",
        r"Title: (.*)\nReview: (.*)\nIs the review positive or negative\?\n$",
    )
    return [{"title": t, "content": c, "label": ["Negative", "Positive"].index(label)} for t, c, label in found]


def commonsense_qa():
    asked = fields(
        "commonsense_qa/commonsense_qa_most_suitable_answer",
        r"following question:\n(.*)\nOptions:\n- (.*)\n$",
    )
    keys = [answer for _, answer in rendered("commonsense_qa/commonsense_qa_question_to_answer_index")]
    return [
        {"question": q, "choices": {"text": options.split("\n- "), "label": list("ABCDE")}, "answerKey": key}
        for (q, options, _), key in zip(asked, keys, strict=True)
    ]


def quarel():
    found = fields("quarel/quarel_choose_between", r'Choose between "(.*)" and  "(.*)"\.\nQuestion: (.*)\n$')
    return [
        {"world_literals": {"world1": [a], "world2": [b]}, "question": q, "answer_index": [a, b].index(answer)}
        for a, b, q, answer in found
    ]


def dbpedia_14():
    labels = Templates(str(SOURCE / "dbpedia_14/templates.yaml"), ["pick_one_category_for_the_following_text"])
    found = fields(
        "dbpedia_14/dbpedia_14_pick_one_category_for_the_following_text", r"or written work\. (.*?) - (.*)\n$"
    )
    names = labels.render({"title": "t", "content": "c", "label": 0}, 1)["choices"]
    return [{"title": t, "content": c, "label": names.index(answer)} for t, c, answer in found]


def cnn_dailymail():
    found = fields("cnn_dailymail/cnn_dailymail_3_0_0_news_summary", r"Summarise the article:\n\n(.*)\n$")
    return [{"article": article, "highlights": answer} for article, answer in found]


def common_gen():
    found = fields("common_gen/common_gen_Put_together", r"to form a sentence: (.*)\.\n$")
    return [{"concepts": concepts.split(", "), "target": answer} for concepts, answer in found]


SETS = {
    paws: "paws/labeled_final",
    amazon_polarity: "amazon_polarity",
    commonsense_qa: "commonsense_qa",
    quarel: "quarel",
    dbpedia_14: "dbpedia_14",
    cnn_dailymail: "cnn_dailymail/3.0.0",
    common_gen: "common_gen",
}
DRAWN = {
    "common_gen_choice_in_concept_centric_sentence_generation",
    "common_gen_random_task_template_prompt",
    "common_gen_topic_to_sentence",
}
SPACED = {"common_gen_sentence_to_concepts": 3}  # rows whose sentence has spaces at its ends, which another file lost


@needs_shared
@pytest.mark.parametrize("recover", SETS, ids=lambda recover: recover.__name__)
def test_the_reference_renderings_come_out_byte_for_byte(recover):
    rows, folder = recover(), SETS[recover]
    path = str(SOURCE / folder / "templates.yaml")
    compared = set()
    for name in Templates(path).train:
        file = re.sub(r"[^A-Za-z0-9]+", "_", f"{folder}/{name}")
        if not (RENDERED / recover.__name__ / f"{file}.jsonl").is_file() or file in DRAWN:
            continue
        compared.add(file)
        by = Templates(path, [name])
        made = [by.render(row, i) for i, row in enumerate(rows, 1)]
        pairs = [(one["prompt"] + "\n", one["completion"]) for one in made if one != NO_TEXT]
        wanted = rendered(f"{recover.__name__}/{file}")
        assert len(pairs) == len(wanted)
        assert sum(pair != want for pair, want in zip(pairs, wanted, strict=True)) == SPACED.get(file, 0), name
    assert compared == {path.stem for path in (RENDERED / recover.__name__).glob("*.jsonl")} - DRAWN


@needs_shared
def test_all_templates_of_the_collection_load_under_names_of_their_own():
    files = sorted(SOURCE.rglob("*.yaml"))
    assert sum(len(Templates(str(file)).train) for file in files) == 273
    together = Templates([str(file) for file in files])
    assert len(together.train) == 273
    assert {name.endswith((" (2)", " (3)")) for name in together.train} == {True, False}


EXACT = [
    "abercrombie", "citation_prediction_classification", "contract_nli_confidentiality_of_agreement",
    "contract_nli_limited_use", "cuad_anti-assignment", "cuad_audit_rights", "cuad_governing_law",
    "cuad_most_favored_nation", "diversity_1", "hearsay", "maud_specific_performance",
    "oral_argument_question_purpose", "proa", "sara_entailment", "telemarketing_sales_rule",
]  # fmt: skip


@needs_shared
@pytest.mark.parametrize("task", EXACT)
def test_few_shot_prompts_of_legalbench_are_rebuilt_byte_for_byte(task):
    folder = SHARED / "legalbench" / task
    base = (folder / "base_prompt.txt").read_text(encoding="utf-8").rstrip("\n")
    with (folder / "train.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    instruction, question = base.split("\n\n", 1)[0], base.rsplit("\n\n", 1)[1]
    by = Templates(question + " ||| {{answer}}")
    made = [by.render(row, i) for i, row in enumerate(rows, 1)]
    assert few_shot(instruction, [f"{one['prompt']} {one['completion']}" for one in made], question) == base


def test_an_open_question_alone_is_its_own_prompt():
    assert few_shot("", [], "Q: a?\nA:") == "Q: a?\nA:"
    assert few_shot("Answer.", ["Q: b\nA: c"], "Q: a?\nA:") == "Answer.\n\nQ: b\nA: c\n\nQ: a?\nA:"


ROW = {"question": "What is {{ 7 * 7 }}?", "answer": "{% raise %} ||| {{x}}", "label": 1, "none": None}


def one(template, row=ROW, number=1, **kwargs):
    return Templates(template).render(row, number, **kwargs)


def test_text_of_the_data_that_looks_like_a_template_stays_as_it_is():
    made = one("Q: {{question}} ||| {{answer}}")
    assert made == {"prompt": "Q: What is {{ 7 * 7 }}?", "completion": "{% raise %} ||| {{x}}", "template": "1"}


def test_nothing_is_not_the_word_none():
    assert one("{{question}}{{none}} ||| a{{none}}")["completion"] == "a"


def write(path, **templates):
    """A PromptSource file of templates by name: Jinja, or Jinja and choices."""
    lines = ["dataset: d", "templates:"]
    for name, text in templates.items():
        jinja, choices = text if isinstance(text, tuple) else (text, None)
        lines += [f"  {name}-id: !Template", f"    name: {json.dumps(name)}", f"    jinja: {json.dumps(jinja)}"]
        lines += [
            f"    answer_choices: {json.dumps(choices)}",
            "    metadata: !TemplateMetadata",
            "      languages: [en]",
        ]
    path.write_text("\n".join(lines))
    return str(path)


def test_choices_are_a_template_too_and_come_with_the_example(tmp_path):
    path = write(
        tmp_path / "t.yaml", a=("{{question}} ||| {{answer_choices[label]}}", '{{options | join("|||")}} ||| no')
    )
    row = {**ROW, "options": ["the | bar", " b|||c "]}
    made = one(path, row)
    assert made["choices"] == ["the | bar", "b|||c", "no"]
    assert made["completion"] == "b|||c"


def test_the_bar_may_stand_in_a_condition_and_more_bars_part_more_right_answers():
    template = "{% if label %}{{question}} ||| one ||| {{label}}{% else %}other ||| two{% endif %}"
    made = one(template)
    assert (made["completion"], made["references"]) == ("one", ["one", "1"])
    assert "references" not in one(template, {"label": 0})


def test_a_template_without_text_for_a_row_gives_way_to_another():
    templates = ["{% if label %}{{question}} ||| yes{% endif %}", "Other: {{question}} ||| {{none}}"]
    assert {one(templates, number=i)["template"] for i in range(20)} == {"1"}
    assert one(templates, {**ROW, "label": 0}) == NO_TEXT
    assert one(templates[1], answered=False)["completion"] == ""


def test_a_row_to_predict_may_lack_the_answer_but_nothing_else():
    assert one("Q: {{q}} ||| {{a}}", {"q": "1"}, answered=False) == {
        "prompt": "Q: 1",
        "completion": "",
        "template": "1",
    }
    assert one("Q: {{q}} ||| {{a}}", {"q": "1", "a": "2"}, answered=False)["completion"] == "2"
    with pytest.raises(ValueError, match="'q' is undefined"):
        one("Q: {{q}} ||| {{a}}", {"a": "1"}, answered=False)


def test_whatever_is_random_is_drawn_by_seed_and_row(tmp_path):
    path = write(
        tmp_path / "t.yaml", a="{{w|choice}}{{w|random}} ||| {{w|choice}}", b="{{[1, 2, 3]|choice}} ||| {{w|random}}"
    )
    row = {"w": list("abcdefgh")}
    by = [Templates(path, seed=seed) for seed in (0, 0, 1)]
    first, again, other = ([templates.render(row, i) for i in range(200)] for templates in by)
    assert first == again != other
    assert len({one["completion"] for one in first}) == 8
    counts = [sum(one["template"] == name for one in first) for name in "ab"]
    assert min(counts) > 70


def test_held_out_templates_are_for_evaluation_alone():
    by = Templates([f"{i} {{{{q}}}} ||| a" for i in range(5)], evaluation=["2", "5"], seed=3)
    used = {s: {by.render({"q": "q"}, i, s)["template"] for i in range(500)} for s in ("train", "validation", "test")}
    assert used == {"train": {"1", "3", "4"}, "validation": {"2", "5"}, "test": {"2", "5"}}
    named = Templates(["a ||| b"] * 3, train=["1"])
    assert named.train == named.evaluation == ["1"]


def test_filters_of_promptsource():
    row = {"q": ["b", "a", "b", "a", "c"], "z": ["x", "y"]}
    assert one("{{q|most_frequent|join(' ')}} ||| {{'t'|highlight}}", row)["prompt"] == "b a"
    assert one("{% for a, b in zip(q, z) %}{{a}}{{b}}{% endfor %} ||| {{z|tojson}}", row)["prompt"] == "bxay"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{question}}", "has no answer"),
        ("{{question}} ||| ", "has no answer"),
        ([], "is empty"),
        ("{{question} ||| {{answer}}", "not valid Jinja"),
        ("{{qestion}} ||| {{answer}}", "fields \\['answer', 'label', 'none', 'question'\\]"),
        ("{{question.__class__.__mro__}} ||| {{answer}}", "unsafe"),
        ("{{''.__class__.__base__.__subclasses__()}} ||| a", "unsafe"),
        ("{{zip.mro()}} ||| a", "unsafe"),
        ("{{question / 0}} ||| {{answer}}", "row 1"),
        ("{{[] | choice}} ||| {{answer}}", "row 1"),
    ],
)
def test_a_template_that_cannot_work_is_one_clear_error(template, message):
    with pytest.raises(ValueError, match=message):
        one(template)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"evaluation": ["titel"]}, "did you mean 'title'"),
        ({"train": ["x"]}, "known: text, title"),
        ({"evaluation": ["title", "text"]}, "none is left"),
    ],
)
def test_a_name_that_no_template_has_is_one_clear_error(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        Templates(write(tmp_path / "t.yaml", title="{{t}} ||| a", text="{{t}} ||| b"), **kwargs)


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "templates: {a: {name: n}}",
        "templates: {a: {name: n, jinja: 3}}",
        "templates: !!python/name:os.system",
        "a: [",
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ValueError, match="no PromptSource file"):
        Templates(str(tmp_path / "t.yaml"))
    with pytest.raises(FileNotFoundError, match=r"did you mean 't\.yaml'"):
        Templates(str(tmp_path / "tt.yaml"))


def test_files_are_read_without_making_objects(tmp_path):
    path = write(tmp_path / "t.yaml", a="{{q}} ||| a")
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load((tmp_path / "t.yaml").read_text())
    assert Templates([path, path, "{{q}} ||| b"]).train == ["a", "a (2)", "3"]
