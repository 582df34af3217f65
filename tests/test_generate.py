"""Text in, text out: a batch answers as each prompt alone, and an answer ends by itself."""

import pytest
import torch
from conftest import QUICK, causal_configs, llama_config
from test_loss_and_gradients import objective
from transformers import AutoModelForCausalLM

from lit_fm.adapted import load_adapted
from lit_fm.backbone import load_network, load_tokenizer
from lit_fm.data.segments import SegmentEncoder
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.evaluate.metrics import exact_match

PROMPTS = [
    "a",
    "Review: We left early.\nSentiment:",
    "one two three four five six seven eight nine",
    "Q: why?\nA:",
    "x " * 60,
]


@pytest.mark.parametrize("name", [*causal_configs(), "tiny-clm"])
def test_a_batch_answers_as_each_prompt_alone(make_backbone, name):
    folder = name if name == "tiny-clm" else make_backbone(name, causal_configs()[name])
    network, tokenizer = load_adapted(folder)
    ids = [SegmentEncoder(tokenizer).ids(prompt) for prompt in PROMPTS]
    together = continue_prompts(network, tokenizer, ids, 12)
    alone = [continue_prompts(network, tokenizer, [one], 12)[0] for one in ids]
    assert together == alone
    assert any(together)


def test_answers_are_those_of_transformers_for_one_prompt(llama):
    network, tokenizer = load_network(llama, AutoModelForCausalLM), load_tokenizer(llama)
    ids = SegmentEncoder(tokenizer).ids("Hello there")
    own = network.eval().generate(torch.tensor([ids]), max_new_tokens=9, do_sample=False)[0, len(ids) :]
    assert continue_prompts(network, tokenizer, [ids], 9) == [tokenizer.decode(own, skip_special_tokens=True)]


def test_the_mode_of_the_network_is_as_it_was(llama):
    network, tokenizer = load_network(llama, AutoModelForCausalLM), load_tokenizer(llama)
    continue_prompts(network.train(), tokenizer, [[5]], 2)
    assert network.training


def learn_by_heart(made, batch, lr):
    """Sixty updates on one batch; the last loss."""
    optimizer = torch.optim.AdamW(made.network.parameters(), lr=lr)
    for _ in range(60):
        optimizer.zero_grad()
        total, count = made.token_losses(batch)
        (total / count).backward()
        optimizer.step()
    return (total / count).item()


def test_an_answer_learnt_by_heart_comes_back_and_stops_by_itself(make_backbone):
    made = objective(make_backbone("heart", llama_config(hidden_size=64)))
    examples = [{"prompt": "Say yes", "completion": "yes, of course"}, {"prompt": "Say no", "completion": "no"}]
    batch = made.collate(made.encode(examples, 64))
    learn_by_heart(made, batch, lr=3e-3)
    assert made.answers(examples, 60) == ["yes, of course", "no"]


def test_a_cycle_is_learnt_and_continued(llama):
    """Labels are shifted once: by two, the loss would fall and the continuation be wrong."""
    import numpy as np

    made = objective(llama)
    cycle = [10 + i % 7 for i in range(40)]
    batch = made.collate([{"input_ids": np.array(cycle, np.int32), "labels": np.array(cycle, np.int32)}])
    assert learn_by_heart(made, batch, lr=1e-2) < 0.05
    made.network.eval()
    out = made.network.generate(torch.tensor([cycle[:9]]), max_new_tokens=10, do_sample=False)[0, 9:]
    assert out.tolist() == cycle[9:19]


@pytest.mark.parametrize(
    ("predictions", "answers", "share"),
    [(["a", "b "], ["a", "b"], 1.0), (["a", "c"], ["a", "b"], 0.5), (["A"], ["a"], 0.0), ([], [], 0.0)],
)
def test_exact_match_counts_equal_texts(predictions, answers, share):
    assert exact_match(predictions, [[right] for right in answers]) == share


def test_the_verb_writes_from_a_zoo_entry_a_run_and_its_adapter(lit, in_tmp):
    prompt = "Prescription: 2 cap po bid\nPlain English:"
    assert lit("fit", "--config", "lora.yaml", *QUICK, "--trainer.max_steps", "3").code == 0
    run = in_tmp / "runs" / "lora" / "001"
    texts = [
        lit("generate", "--model", model, "--prompt", prompt, "--max_new_tokens", "20").out
        for model in (run, run / "adapter", "tiny-clm")
    ]
    assert texts[0] == texts[1] != texts[2]
    (in_tmp / "prompts.txt").write_text("one\ntwo\n")
    done = lit("generate", "--model", "tiny-clm", "--file", "prompts.txt", "--max_new_tokens", "3")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "tiny-clmm", "--prompt", "x"], "did you mean 'tiny-clm'"),
        (["--model", "tiny-clm", "--prompt", "x", "--max_new_tokens", "0"], "expected at least 1"),
        (["--model", "tiny-clm", "--promt", "x"], "--promt"),
        (["--prompt", "x"], "model"),
        (["--model", "tiny-clm", "--file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_generate_cannot_use_is_said_in_one_line(lit, args, message):
    done = lit("generate", *args)
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_prompt_longer_than_the_context_loses_its_left_and_says_so(make_backbone, caplog):
    network, tokenizer = load_adapted(make_backbone("short", llama_config(max_position_embeddings=48)))
    ids = SegmentEncoder(tokenizer).ids("word " * 100)
    assert len(ids) > 48
    cut = [ids[0], *ids[1 - 40 :]]
    assert continue_prompts(network, tokenizer, [ids], 8) == continue_prompts(network, tokenizer, [cut], 8)
    assert "1 of 1 prompts are longer than 40 tokens" in caplog.text
    with pytest.raises(ValueError, match="more than the context"):
        continue_prompts(network, tokenizer, [ids], 48)


def test_the_makers_sampling_settings_do_not_change_what_is_greedy(llama):
    network, tokenizer = load_network(llama, AutoModelForCausalLM), load_tokenizer(llama)
    ids = [SegmentEncoder(tokenizer).ids("one two three")]
    plain = continue_prompts(network, tokenizer, ids, 12)
    network.generation_config.repetition_penalty = 5.0
    assert continue_prompts(network, tokenizer, ids, 12) == plain
    assert network.generation_config.repetition_penalty == 5.0
