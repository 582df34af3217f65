"""What soft prompts are nearest to: the search, the notes of a run, the tracker's table, and the verb."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import QUICK
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from lit_fm.adapt import LoRA, Prefix, SoftPrompt
from lit_fm.backbone import load_network, load_tokenizer, load_vectors
from lit_fm.data.tokenizer import train_tokenizer
from lit_fm.evaluate.neighbours import Neighbours, nearest, readable

FIT = ["fit", "--config", "lora.yaml", *QUICK, "--score.examples", "0", "--trainer.max_steps", "3"]
PROMPT = ["--model.adaptation", "lit_fm.SoftPrompt", "--model.adaptation.tokens", "6"]


def all_cosines(vectors, table):
    """(tokens, vocabulary), by the definition, in float64."""
    a, b = (np.asarray(part.detach(), dtype=np.float64) for part in (vectors, table))
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    return a @ b.T / np.where(lengths == 0, 1, lengths)


def notes(run):
    return [json.loads(line) for line in (run / "prompt_neighbours.jsonl").read_text(encoding="utf-8").splitlines()]


def ids(note):
    return [[one["id"] for one in token["nearest"]] for token in note["tokens"]]


# The search


@pytest.mark.parametrize("rows", [1, 7, 64, 1000, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_nearest_are_those_of_the_whole_table_whatever_the_chunks(rows, dtype):
    torch.manual_seed(0)
    vectors, table = torch.randn(5, 16), (torch.randn(1000, 16) * torch.rand(1000, 1) * 9).to(dtype)
    table[3] = 0
    numbers, cosines = nearest(vectors, table, 8, rows)
    expected = all_cosines(vectors, table.float())
    assert numbers.tolist() == np.argsort(-expected, axis=1)[:, :8].tolist()
    np.testing.assert_allclose(cosines, np.sort(expected, axis=1)[:, ::-1][:, :8], atol=1e-6)


def test_a_vocabulary_smaller_than_what_is_asked_for_is_given_whole():
    numbers, cosines = nearest(torch.eye(3)[:2], torch.eye(3), 9, rows=2)
    assert numbers.shape == cosines.shape == (2, 3)
    assert cosines[:, 0].tolist() == [1, 1]
    assert numbers[:, 0].tolist() == [0, 1]


# The vectors


@pytest.mark.parametrize(
    ("backbone", "auto_class", "task"),
    [
        ("tiny-clm", AutoModelForCausalLM, "CAUSAL_LM"),
        ("tiny-mlm", AutoModelForMaskedLM, None),
        ("tiny-t5", AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM"),
    ],
)
def test_a_prompt_made_of_a_text_is_nearest_to_the_tokens_of_that_text(backbone, auto_class, task):
    network, tokenizer = load_network(backbone, auto_class), load_tokenizer(backbone)
    table, text = network.get_input_embeddings().weight.detach().clone(), "The teacher was in the house"
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = SoftPrompt(tokens=len(expected) + 2, start="text", text=text)
    numbers, cosines = nearest(prompt.prompt_vectors(prompt.apply(network, task)), table, 3)
    assert numbers[:, 0].tolist() == [*expected, *expected[:2]]
    torch.testing.assert_close(cosines[:, 0], torch.ones(len(cosines)), atol=1e-5, rtol=0)


def test_a_prompt_made_of_vocabulary_vectors_is_nearest_to_those():
    network = load_network("tiny-clm", AutoModelForCausalLM)
    table, prompt = network.get_input_embeddings().weight.detach().clone(), SoftPrompt(tokens=40)
    torch.manual_seed(0)
    vectors = prompt.prompt_vectors(prompt.apply(network, "CAUSAL_LM")).detach()
    own = (vectors[:, None] == table[None]).all(-1).int().argmax(1)
    assert torch.equal(table[own], vectors)
    numbers, cosines = nearest(vectors, table, 2)
    torch.testing.assert_close(cosines[:, 0], torch.ones(40), atol=1e-5, rtol=0)
    # The zoo's model never read some of its tokens: their vectors all point one way, and no cosine parts them.
    apart = cosines[:, 1] < 0.9999
    assert apart.sum() > 20
    assert torch.equal(numbers[apart, 0], own[apart])


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_vectors_of_p_tuning_are_what_stands_before_the_text(encoder):
    prompt = SoftPrompt(tokens=4, encoder=encoder, width=8)
    network = prompt.apply(load_network("tiny-clm", AutoModelForCausalLM), "CAUSAL_LM").eval()
    seen = {}
    network.get_base_model().register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    network(input_ids=torch.tensor([[5, 6, 7]]))
    assert torch.equal(seen["inputs_embeds"][0, :4], prompt.prompt_vectors(network))
    assert seen["inputs_embeds"].shape[1] == 7


@pytest.mark.parametrize("adaptation", [LoRA(), Prefix(tokens=3)])
def test_what_puts_nothing_before_the_text_has_no_vectors(adaptation):
    network = adaptation.apply(load_network("tiny-clm", AutoModelForCausalLM), "CAUSAL_LM")
    assert adaptation.prompt_vectors(network) is None


# The tokens


def test_tokens_are_shown_with_their_white_space():
    tokenizer = load_tokenizer("tiny-clm")
    known = tokenizer.get_vocab()
    shown = {piece: readable(tokenizer, known[piece]) for piece in ("Ġthe", "ri", "<s>", "Ċ", "Ġ", "¤")}
    assert shown == {"Ġthe": "·the", "ri": "ri", "<s>": "<s>", "Ċ": r"\n", "Ġ": "·", "¤": "<¤>"}
    assert readable(tokenizer, len(tokenizer) + 5) == f"<{len(tokenizer) + 5}>"


def test_tokens_of_other_kinds_of_tokenizer_keep_what_marks_them(in_tmp):
    (in_tmp / "text.txt").write_text("the teacher teaches the students in the house\n" * 50)
    for kind, size in (("unigram", 420), ("wordpiece", 60)):
        train_tokenizer(source="text.txt", out=kind, kind=kind, vocab_size=size)
    unigram, wordpiece = (AutoTokenizer.from_pretrained(folder) for folder in ("unigram", "wordpiece"))
    spaced = [number for piece, number in unigram.get_vocab().items() if piece.startswith("▁")]
    assert spaced
    assert all(readable(unigram, number)[0] == "·" for number in spaced)
    assert readable(unigram, unigram.get_vocab()["<0xE2>"]) == "<0xE2>"
    inner = [(piece, number) for piece, number in wordpiece.get_vocab().items() if piece.startswith("##")]
    assert inner
    assert all(readable(wordpiece, number) == piece for piece, number in inner)


# The notes


def followed(folder, steps, total, accumulate=1, rank_zero=True):
    """What is noted by step in a run of so many steps of a total, without a trainer; its end brings new vectors."""
    network = SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(weight=torch.eye(4)))
    adaptation = SimpleNamespace(virtual_tokens=2, prompt_vectors=lambda _: torch.eye(4)[:2])
    objective = SimpleNamespace(
        adaptation=adaptation, network=network, tokenizer=load_tokenizer("tiny-clm"), total_steps=total
    )
    trainer = SimpleNamespace(global_step=0, is_global_zero=rank_zero, loggers=[])
    callback = Neighbours(folder)
    callback.on_train_start(trainer, objective)
    for batch in range(1, steps * accumulate + 1):
        trainer.global_step = batch // accumulate
        callback.on_train_batch_end(trainer, objective)
    adaptation.prompt_vectors = lambda _: torch.eye(4)[2:]
    callback.on_train_end(trainer, objective)
    return {note["step"]: [row[0] for row in ids(note)] for note in callback.notes}


def test_notes_are_taken_at_the_start_at_the_end_and_evenly_between(tmp_path):
    assert list(followed(tmp_path, 1000, 1000)) == list(range(0, 1001, 100))
    assert list(followed(tmp_path, 37, 37, accumulate=3)) == [0, 4, 8, 12, 15, 19, 23, 26, 30, 34, 37]
    assert list(followed(tmp_path, 250, 1000)) == [0, 100, 200, 250]  # stopped early


def test_the_last_note_is_of_the_vectors_that_are_exported(tmp_path):
    """Such as an average over steps, which takes their place at the end."""
    assert followed(tmp_path, 2, 2) == {0: [0, 1], 1: [0, 1], 2: [2, 3]}


def test_only_the_first_process_notes(tmp_path):
    assert followed(tmp_path, 20, 20, rank_zero=False) == {}
    assert not list(tmp_path.iterdir())


# Runs


class Tables(Logger):
    """A tracker that keeps its tables."""

    made: list = []
    name, version = "tables", None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_table(self, key, columns, data):
        self.made.append((key, columns, data))


def test_a_run_notes_its_prompt_a_tracker_gets_the_table_and_the_verb_prints_it(lit, in_tmp, monkeypatch):
    monkeypatch.setattr(Tables, "made", [])
    text = ("--model.adaptation.start", "text", "--model.adaptation.text", "Take one tablet")
    done = lit(*FIT, *PROMPT, *text, "--trainer.logger", f"{__name__}.Tables")
    assert done.code == 0, done.err
    run = in_tmp / "runs" / "lora" / "001"
    noted = notes(run)
    assert [note["step"] for note in noted] == [0, 1, 2, 3]

    asked = load_tokenizer("tiny-clm")("Take one tablet", add_special_tokens=False)["input_ids"]
    assert [row[0] for row in ids(noted[0])] == (asked * 6)[:6]
    for token in noted[0]["tokens"]:
        assert token["cosine_with_start"] == pytest.approx(1, abs=1e-5)
        assert token["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    last = check_last(run, noted[-1])
    moved = np.diagonal(all_cosines(load_vectors("tiny-clm")[(asked * 6)[:6]], last))
    assert [token["cosine_with_start"] for token in noted[-1]["tokens"]] == pytest.approx(moved, abs=2e-6)
    assert moved.max() < 0.99999

    [(_, columns, rows)] = [made for made in Tables.made if made[0] == "prompt_neighbours"]
    assert columns[:2] == ["step", "virtual_token"]
    assert [row[:2] for row in rows] == [[step, place] for step in range(4) for place in range(1, 7)]
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[0][2:5] == [1.0, noted[0]["tokens"][0]["nearest"][0]["token"], 1.0]

    done = lit("prompt-neighbours", run)
    assert done.code == 0, done.err
    assert "step 0" in done.out
    assert "step 3" in done.out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines() if "│" in line]
    assert len(cells) == 6 * 5
    for place in range(6):
        first, last = (note["tokens"][place]["nearest"][:5] for note in (noted[0], noted[-1]))
        rows = cells[5 * place : 5 * place + 5]
        new = len({one["id"] for one in last} - {one["id"] for one in first})
        assert (rows[0][0], rows[0][3], rows[0][4]) == (str(place + 1), f"{moved[place]:.3f}", str(new))
        for column, shown in ((1, first), (2, last)):
            assert [row[column] for row in rows] == [f"{one['cosine']:.2f} {one['token']}" for one in shown]
    for wrong in ("0", "11"):
        done = lit("prompt-neighbours", run, "--nearest", wrong)
        assert (done.code, done.err) == (
            1,
            f"error: nearest is {wrong}, expected 1 to 10: so many were noted in the run.\n",
        )


def check_last(run, note):
    """Compare a run's last note with the vectors that it exported, and give these: (tokens, width)."""
    vectors = load_file(run / "adapter" / "adapter_model.safetensors")["prompt_embeddings"]
    cosines = all_cosines(vectors, load_vectors("tiny-clm"))
    for row, token in zip(cosines, note["tokens"], strict=True):
        assert [one["cosine"] for one in token["nearest"]] == pytest.approx(np.sort(row)[::-1][:10], abs=2e-6)
        assert [row[one["id"]] for one in token["nearest"]] == pytest.approx(np.sort(row)[::-1][:10], abs=2e-6)
    return vectors


def test_of_p_tuning_what_the_encoder_makes_is_noted(lit, in_tmp):
    done = lit(*FIT, *PROMPT, "--model.adaptation.encoder", "mlp")
    assert done.code == 0, done.err
    run = in_tmp / "runs" / "lora" / "001"
    noted = notes(run)
    assert [note["step"] for note in noted] == [0, 1, 2, 3]
    check_last(run, noted[-1])
    assert all(token["cosine_with_start"] < 0.99999 for token in noted[-1]["tokens"])
    done = lit("prompt-neighbours", run, "--nearest", "2")
    assert done.code == 0, done.err
    assert "of 2 are new" in done.out


def test_noting_changes_nothing_of_what_is_learnt(lit, in_tmp, monkeypatch):
    assert lit(*FIT, *PROMPT).code == 0
    monkeypatch.setattr(Neighbours, "_note", lambda *args: None)
    assert lit(*FIT, *PROMPT).code == 0
    runs = [in_tmp / "runs" / "lora" / number for number in ("001", "002")]
    assert [(run / "prompt_neighbours.jsonl").exists() for run in runs] == [True, False]
    a, b = (load_file(run / "adapter" / "adapter_model.safetensors")["prompt_embeddings"] for run in runs)
    assert torch.equal(a, b)


def test_a_run_without_a_soft_prompt_has_no_such_file_and_the_verb_says_so(lit, in_tmp):
    assert lit(*FIT).code == 0
    run = in_tmp / "runs" / "lora" / "001"
    assert not (run / "prompt_neighbours.jsonl").exists()
    done = lit("prompt-neighbours", run)
    assert done.code == 1
    assert done.err.count("error:") == len(done.err.splitlines()) == 1
    assert "has no prompt_neighbours.jsonl: its adaptation is LoRA, expected a SoftPrompt" in done.err


def test_what_is_no_run_or_was_broken_off_is_one_clear_error(lit, in_tmp):
    done = lit("prompt-neighbours", "runs/none")
    assert done.code == 1
    assert done.err.startswith("error: runs/none: there is no run")
    (in_tmp / "config.yaml").write_text("model: {init_args: {adaptation: null}}")
    assert "its adaptation is Full" in lit("prompt-neighbours", ".").err
    (in_tmp / "prompt_neighbours.jsonl").write_text('{"step": 0, "tok')
    done = lit("prompt-neighbours", ".")
    assert done.code == 1
    assert "is not JSON lines" in done.err
    assert "Traceback" not in done.err
