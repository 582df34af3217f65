"""What is made of a run: merged models, adapters with cards, several adapters over one backbone."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from conftest import QUICK
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from lit_fm.adapted import load_adapted
from lit_fm.evaluate.generate import continue_prompts
from lit_fm.ship.adapters import Adapters
from lit_fm.ship.merge import compared

IDS = torch.arange(3, 60)[None]
ADAPTATIONS = {
    "lora": ("lit_fm.LoRA",),
    "other": ("lit_fm.LoRA", "--seed_everything", "1"),
    "qlora": ("adapt/qlora.yaml",),
    "8bit": ("adapt/lora-8bit.yaml",),
    "dora": ("adapt/dora.yaml",),
    "rslora": ("lit_fm.LoRA", "--model.adaptation.rslora", "true"),
    "norms": ("adapt/norms.yaml",),
    "houlsby": ("adapt/houlsby.yaml",),
    "prompt": ("adapt/prompt.yaml",),
    "full": ("lit_fm.Full", "--model.optimizer.lr", "1e-3"),
    "tokens": ("lit_fm.LoRA", "--model.new_tokens", '["<drug>"]'),
    "cpt": ("lit_fm.Peft", "--model.adaptation.config", json.dumps(
        {"peft_type": "CPT", "cpt_token_ids": [5, 6, 7], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3]})),
}  # fmt: skip


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Short runs by the name of what adapts them, made when first asked for."""
    from lit_fm.cli import main

    folder = tmp_path_factory.mktemp("ship")

    def run(name):
        made = folder / "runs" / name / "001"
        if not made.exists():
            here = Path.cwd()
            os.chdir(folder)
            try:
                adaptation, *more = ADAPTATIONS[name]
                options = ("--model.adaptation", adaptation, *more, "--trainer.max_steps", "6", "--run.name", name)
                main(["fit", "--config", "lora.yaml", *QUICK, *options])
            finally:
                os.chdir(here)
        return str(made)

    return run


def logits(network):
    network.eval()
    with torch.no_grad():
        return network(input_ids=IDS).logits


@pytest.mark.parametrize("name", ["lora", "norms", "full"])
def test_a_merged_model_is_read_by_transformers_alone_and_says_the_same(runs, lit, in_tmp, name):
    run = runs(name)
    done = lit("merge", run, "--out", "merged")
    assert done.code == 0, done.err
    assert "reloaded" in done.out
    plain = AutoModelForCausalLM.from_pretrained("merged")
    torch.testing.assert_close(logits(plain), logits(load_adapted(run)[0]), rtol=0, atol=1e-4)
    assert not torch.equal(logits(plain), logits(load_adapted("tiny-clm")[0]))
    card = (in_tmp / "merged" / "README.md").read_text()
    about = json.loads(card.split("```json\n")[1].split("```")[0])
    assert about["reloaded"]["share_of_largest"] < 1e-4
    assert {"adapted", "merged", "reloaded"} == set(about["measured"])


@pytest.mark.parametrize("name", ["qlora", "8bit"])
def test_a_quantised_backbone_is_merged_in_full_precision(runs, lit, in_tmp, name):
    done = lit("merge", runs(name), "--out", "merged")
    assert done.code == 0, done.err
    network = AutoModelForCausalLM.from_pretrained("merged")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    about = json.loads((in_tmp / "merged" / "README.md").read_text().split("```json\n")[1].split("```")[0])
    assert about["reloaded"]["largest_difference"] < 0.01


@pytest.mark.parametrize(
    ("name", "why"),
    [("prompt", "a soft prompt is no change"), ("houlsby", "are not linear"), ("cpt", "vectors stand before the text")],
)
def test_what_cannot_be_merged_says_why_and_writes_nothing(runs, lit, in_tmp, name, why):
    done = lit("merge", runs(name), "--out", "merged")
    assert done.code == 1
    assert f"cannot be merged: {why}" in done.err or why in done.err
    assert list(in_tmp.iterdir()) == []


def test_a_merged_model_that_differs_is_not_written(runs, lit, in_tmp, monkeypatch):
    from lit_fm.ship import merge

    def forgets(objective):
        return objective.network.unload()

    monkeypatch.setattr(merge, "merged", forgets)
    done = lit("merge", runs("lora"), "--out", "merged")
    assert done.code == 1
    assert "the logits differ by" in done.err
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize("verb", ["merge", "export"])
def test_a_folder_that_is_there_is_left_alone(runs, lit, in_tmp, verb):
    (in_tmp / "mine").mkdir()
    (in_tmp / "mine" / "file").write_text("kept")
    done = lit(verb, runs("lora"), "--out", "mine")
    assert done.code == 1
    assert "is there already, and nothing is overwritten" in done.err
    assert (in_tmp / "mine" / "file").read_text() == "kept"
    assert lit(verb, "nowhere", "--out", "new").code == 1


def test_differences_are_those_of_torch():
    torch.manual_seed(0)
    one, other = torch.randn(2, 7, 50).unbind(0)
    about = compared([one[:3], one[3:]], [other[:3], other[3:]])
    expected = F.kl_div(other.log_softmax(-1), one.log_softmax(-1), log_target=True, reduction="batchmean")
    assert about["kl"] == pytest.approx(float(expected), rel=1e-5)
    assert about["largest_difference"] == pytest.approx(float((one - other).abs().max()))
    assert compared([one], [one]) == {"largest_difference": 0, "share_of_largest": 0, "kl": 0}


@pytest.mark.parametrize("name", ["lora", "houlsby", "full"])
def test_an_export_has_a_card_and_says_what_the_run_says(runs, lit, in_tmp, name):
    run = runs(name)
    assert lit("export", run, "--out", "out").code == 0
    text = (in_tmp / "out" / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["base_model"], head["license"]) == ("tiny-clm", "apache-2.0")
    made = json.loads(Path(run, "run.json").read_text())
    for expected in (made["data"]["train"]["content"], made["packages"]["peft"], "learnable_parameters"):
        assert expected in text
    everything = "".join(path.read_text() for path in (in_tmp / "out").glob("*.[mj]*") if path.suffix != ".safetensors")
    assert str(in_tmp.parent) not in everything
    if name != "full":
        assert json.loads((in_tmp / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-clm"
    assert torch.equal(logits(load_adapted("out")[0]), logits(load_adapted(run)[0]))


# Several adapters over one backbone.


def answers(name, prompts):
    network, tokenizer = load_adapted(name)
    from lit_fm.data.segments import SegmentEncoder
    from lit_fm.data.templates import prompt_text

    encoder = SegmentEncoder(tokenizer)
    return continue_prompts(network, tokenizer, [encoder.ids(prompt_text(p)) for p in prompts], 12)


def test_each_request_gets_the_adapter_that_it_names(runs, lit, in_tmp):
    prompts = ["Prescription: 1 tab po qid pc & hs\nPlain English:", "Ada has a cat. The cat"]
    folders = {"one": runs("lora"), "two": runs("other")}
    expected = [answers(name, prompts) for name in (*folders.values(), "tiny-clm")]
    asked = [(name, prompt) for prompt in prompts for name in ("two", None, "one")]
    written = Adapters(folders).write(asked, 12)
    assert written == [expected[{"one": 0, "two": 1, None: 2}[name]][prompts.index(p)] for name, p in asked]
    assert len(set(written[:3])) > 1
    lines = [json.dumps({"adapter": name, "prompt": prompt}) + "\n" for name, prompt in asked]
    (in_tmp / "requests.jsonl").write_text("".join(lines))
    more = ("--adapters", json.dumps(folders), "--max_new_tokens", 12)
    done = lit("switch", "--file", "requests.jsonl", *more)
    assert [json.loads(line)["answer"] for line in done.out.splitlines() if line[0] == "{"] == written
    apart = '{"prompt": "Ada\u2028has a cat."}\n'  # JSON that `splitlines` would cut in two
    (in_tmp / "requests.jsonl").write_text("".join([*lines[:5], apart, "hello\n"]))
    assert "line 7: expected" in lit("switch", "--file", "requests.jsonl", *more).err


def test_an_adapter_that_is_not_there_is_named(runs):
    with pytest.raises(ValueError, match="there is no adapter 'three': they are one"):
        Adapters({"one": runs("lora")}).write([("three", "hello")])
    with pytest.raises(ValueError, match="is a Bottleneck, which peft cannot switch"):
        Adapters({"one": runs("houlsby")})


@pytest.mark.parametrize("how", ["linear", "ties", "dare_linear", "dare_ties"])
def test_adapters_are_combined(runs, lit, in_tmp, how):
    folders = {runs("lora"): 1.0, runs("other"): 0.0}
    done = lit("combine", "--adapters", json.dumps(folders), "--how", how, "--density", 1, "--out", "both")
    assert done.code == 0, done.err
    made = logits(load_adapted("both")[0])
    one, other = (logits(load_adapted(name)[0]) for name in folders)
    assert not torch.allclose(made, other, atol=1e-3)
    if "ties" not in how:  # which elects signs by both, whatever they weigh
        torch.testing.assert_close(made, one, rtol=0, atol=1e-3)


def updates(folder, name="default"):
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    network = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(load_adapted("tiny-clm")[0].name_or_path), folder
    )
    return {n: m.get_delta_weight(name) for n, m in network.named_modules() if isinstance(m, LoraLayer)}


@pytest.mark.parametrize("pair", [("lora", "other"), ("rslora", "lora")])
def test_a_weighted_sum_is_that_of_the_updates(runs, lit, in_tmp, pair):
    folders = [f"{runs(name)}/adapter" for name in pair]
    done = lit("combine", "--adapters", json.dumps(dict(zip(folders, (0.7, -0.4), strict=True))), "--out", "both")
    assert done.code == 0, done.err
    one, other, both = (updates(folder) for folder in (*folders, "both"))
    for name, update in both.items():
        torch.testing.assert_close(update, 0.7 * one[name] - 0.4 * other[name], rtol=1e-4, atol=1e-6)


def test_adapters_that_cannot_be_summed_are_refused(runs, lit, in_tmp):
    for name in ("dora", "prompt", "qlora", "tokens"):
        done = lit("combine", "--adapters", json.dumps({runs("lora"): 1, runs(name): 1}), "--out", "both")
        assert done.code == 1
        assert len(done.err.splitlines()) == 1
    assert list(in_tmp.iterdir()) == []


def test_an_adapter_with_new_tokens_is_not_put_beside_one_without(runs):
    for pair in (("lora", "tokens"), ("tokens", "lora")):
        with pytest.raises(ValueError, match="their new tokens are not the same"):
            Adapters({name: runs(name) for name in pair})


def test_an_adapter_over_4_bits_is_loaded_over_4_bits(runs):
    from lit_fm.ship.opened import opened

    objective, _, _ = opened(runs("qlora"))
    torch.testing.assert_close(logits(load_adapted(runs("qlora"))[0]), logits(objective.network))


def test_the_table_of_costs_counts_bytes(runs, lit):
    run = runs("lora")
    done = lit("adapters", run, runs("houlsby"))
    size = Path(run, "adapter", "adapter_model.safetensors").stat().st_size
    assert f"{size:,}" in done.out
    whole = sum(p.numel() * 4 for p in load_adapted("tiny-clm")[0].parameters())
    assert f"{whole:,}" in done.out
    assert f"{2 * whole:,}" in done.out
    assert "holds no adapter" in lit("adapters", "nowhere").err
