"""The zoo: cards that say what is so, names that stand for what they say, and small twins that train."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import transformers
import yaml
from conftest import ROOT
from test_loss_and_gradients import Fixed
from transformers import AutoConfig, AutoTokenizer

import lit_fm
from lit_fm import catalogue, zoo
from lit_fm.backbone import context_length, load_config, load_network, load_tokenizer
from lit_fm.cards import FACTS, lacks, read_card
from lit_fm.catalogue import page
from lit_fm.optim import Schedule
from lit_fm.twin import shrink

CARDS = {name: read_card(folder) for name, folder in zoo.entries().items()}
BARE = [name for name, card in CARDS.items() if not card.weights]
WITH_WEIGHTS = [name for name in CARDS if name not in BARE]


# Cards.


def parameters(folder):
    """Of the network that config.json describes, on the meta device: nothing is allocated."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        network = getattr(transformers, config.architectures[0])(config)
    network.tie_weights()
    count = sum(p.numel() for p in network.parameters())
    # transformers 5 ties the head of every T5 that it builds; the weights of v1.1 have one of their own.
    head, body = network.get_output_embeddings(), network.get_input_embeddings()
    untied = json.loads((folder / "config.json").read_text()).get("tie_word_embeddings") is False
    own_head = untied and not list(folder.glob("*.safetensors")) and head.weight is body.weight
    return count + head.weight.numel() if own_head else count


@pytest.mark.parametrize("name", CARDS)
def test_a_card_s_network_has_as_many_parameters_as_were_published(name):
    facts = CARDS[name].facts
    assert facts["tolerance"] <= 0.02
    assert parameters(CARDS[name].folder) == pytest.approx(facts["parameters"], rel=facts["tolerance"])


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_its_sections_licence_facts_and_sources(name):
    card = CARDS[name]
    assert lacks(card) == []
    assert card.text.startswith(f"# {name}\n")
    assert hasattr(lit_fm, card.facts["trained_by"])
    for source in card.facts["sources"]:
        assert source.startswith("https://") or (ROOT / source).is_file(), source
    if name in BARE:
        assert f"{card.facts['parameters']:,} published" in card.text
        assert card.hub is None or f"--model.backbone {card.hub}" in card.text
        assert all(f"<{source}>" in card.text for source in card.facts["sources"])


def test_every_commonly_told_model_is_there():
    told = "transformer bert roberta xlnet gpt-1 gpt2 t5 flan-t5 bart megatron turing gpt-3 gopher chinchilla palm opt"
    more = "bloom llama bloomberggpt jurassic mt-nlg llama-3.1 llama-3.2 qwen3 gemma-3 mistral smollm modernbert"
    assert not [word for word in f"{told} {more}".split() if not any(name.startswith(word) for name in CARDS)]
    assert len([name for name in CARDS if name.startswith("gpt-3-")]) == 8


def test_an_incomplete_card_is_told_what_it_lacks(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(CARDS["bert-base"].folder, folder)
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(
        text.replace("## Uses", "## Use").replace("objective: masked", "objective: maskd")
    )
    assert lacks(read_card(folder)) == [
        "the section ## Uses",
        "facts.objective out of causal, masked, seq2seq, permutation",
    ]
    (folder / "README.md").write_text("# mine\n")
    assert {"license in its head", *(f"facts.{key}" for key in FACTS)} <= set(lacks(read_card(folder)))
    (folder / "README.md").write_text("---\nlicense: [\n---\n# mine\n")
    with pytest.raises(ValueError, match=r"the head of README\.md cannot be read"):
        read_card(folder)


def test_the_zoo_s_page_is_what_the_cards_say(lit):
    shown = (ROOT / "zoo" / "README.md").read_text()
    assert shown == page(CARDS.values()), "python -m lit_fm zoo readme > zoo/README.md"
    assert lit("zoo", "readme").out == page(CARDS.values())


def test_6nd_gives_the_petaflop_s_days_of_gpt_3_s_appendix():
    by_appendix = {"gpt-3-": 8, "t5-": 5, "roberta-": 1, "bert-": 2}
    for start, number in by_appendix.items():
        cards = [card for name, card in CARDS.items() if name.startswith(start)]
        assert len(cards) == number
        for card in cards:
            rel = 0.08 if card.name == "t5-3b" else 0.05  # there counted as 3 billion, of which it has 2.8
            assert card.petaflop_s_days == pytest.approx(card.facts["petaflop_s_days"], rel=rel), card.name


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_an_entry_with_weights_is_small_and_has_its_own_recipe(name):
    card = CARDS[name]
    assert card.weights <= 6e6
    assert f"pretrain/{name}.yaml" in card.text
    assert len(AutoTokenizer.from_pretrained(card.folder)) <= card.config["vocab_size"]


# Look.


def test_the_zoo_lists_every_entry_and_shows_its_card(lit):
    listed = lit("zoo", "list")
    assert listed.code == 0, listed.err
    assert lit("zoo").out == listed.out
    for name, card in CARDS.items():
        [line] = [line for line in listed.out.splitlines() if line.split("  ")[0] == name]
        assert ("MB of weights" if card.weights else card.hub or "no weights") in line
    assert lit("zoo", "show", "bert-base").out == CARDS["bert-base"].text + "\n"


def test_listing_imports_nothing_heavy():
    script = (
        "import sys; from lit_fm.cli import main; main(['zoo', 'list', '--largest', '1B']);"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy', 'peft'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (("--family", "palm"), {"palm-540b"}),
        (("--objective", "permutation"), {"xlnet-large"}),
        (("--objective", "Denoising"), {"bart-large"}),
        (("--license", "Llama3.1"), {"llama-3.1-8b", "llama-3.1-70b"}),
        (("--smallest", "250B"), {"gopher-280b", "palm-540b", "mt-nlg-530b"}),
        (("--family", "gpt", "--largest", "200M"), {"gpt-1", "gpt-3-small"}),
        (("--family", "bert", "--objective", "causal"), set()),
        (("--smallest", "1e9", "--largest", "1,000,000,000"), {"gemma-3-1b"}),
    ],
)
def test_a_list_keeps_what_was_asked_for(lit, filters, kept):
    done = lit("zoo", "list", *filters)
    assert done.code == 0, done.err
    assert {line.split()[0] for line in done.out.splitlines()[:-2]} == kept
    assert f"{len(kept)} of {len(CARDS)} entries" in done.out


def test_models_stand_side_by_side(lit):
    done = lit("zoo", "compare", "gpt-3-175b", "chinchilla-70b", "t5-11b")
    rows = {row[0]: row[1:] for line in done.out.splitlines() if (row := [c.strip() for c in line.split("│")[1:-1]])}
    assert rows["gpt-3-175b"] == ["175B", "12,288", "96", "96", "300B", "3,637", "4,190 GB"]
    assert rows["chinchilla-70b"] == ["70B", "8,192", "80", "64", "1.4T", "6,806", "1,680 GB"]
    assert rows["t5-11b"] == ["11.3B", "1,024", "24 + 24", "128", "1T", "393", "271 GB"]


def test_on_a_narrow_screen_names_stay_whole(lit, monkeypatch):
    monkeypatch.setattr(catalogue, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setenv("COLUMNS", "80")
    compared, listed = lit("zoo", "compare", "transformer-large", "mt-nlg-530b", "t5-11b").out, lit("zoo", "list").out
    assert max(len(line) for line in (compared + listed).splitlines()[:-1]) <= 80
    assert "│transformer-large│" in compared
    assert "12,720 GB" in compared
    for card in CARDS.values():
        assert card.hub is None or card.hub in listed


def test_a_folder_is_a_new_entry(lit, in_tmp, monkeypatch):
    monkeypatch.setattr(zoo, "SHARE", in_tmp)
    folder = in_tmp / "zoo" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text((ROOT / "zoo" / "tiny-clm" / "config.json").read_text())
    assert re.search("^mine .* no weights", lit("zoo", "list").out)
    assert "write" in lit("zoo", "show", "mine").out
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# mine\n\nWhat I made.\n")
    assert "What I made." in lit("zoo", "list").out
    assert lit("zoo", "show", "mine").out == "# mine\n\nWhat I made.\n"
    assert lit("zoo", "compare", "mine", "mine").code == 0
    assert "| [mine](mine/README.md) |" in lit("zoo", "readme").out
    assert zoo.resolve("mine") == str(folder)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "tiny-xlm"), "did you mean 'tiny-"),
        (("show", "gpt3-175b"), "did you mean 'gpt-3-175b'?"),
        (("show",), "needs the name of an entry"),
        (("show", "tiny-clm", "more"), "takes one name, got tiny-clm, more: zoo compare takes several"),
        (("list", "tiny-clm"), "zoo show tiny-clm shows its card"),
        (("shwo", "tiny-clm"), "one of 'list', 'show'"),
        (("compare", "tiny-clm"), "names of two entries or more"),
        (("compare", "tiny-clm", "bert-bse"), "did you mean 'bert-base'?"),
        (("list", "--family", "brt"), "did you mean 'bert'?"),
        (("list", "--objective", "causl"), "did you mean 'causal'?"),
        (("list", "--license", "apache-2"), "did you mean 'apache-2.0'?"),
        (("list", "--smallest", "0B"), "expected a number from 1 to 1e+40"),
        (("list", "--smallest", "7B", "--largest", "1B"), "exchange them"),
        (("show", "tiny-clm", "--family", "bert"), "zoo show takes no --family: it goes with list"),
        (("list", "--out", "card.md"), "it goes with new-card"),
        (("new-card", "nowhere"), "nowhere has no config.yaml: it is no run"),
    ],
)  # fmt: skip
def test_a_wrong_word_to_the_zoo_is_one_clear_error(lit, args, message):
    done = lit("zoo", *args)
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err


# Names.


@pytest.mark.parametrize("load", [load_tokenizer, lambda name: load_network(name, transformers.AutoModelForMaskedLM)])
def test_an_entry_without_weights_names_where_its_weights_are(load):
    hint = r"--model\.backbone google-bert/bert-base-uncased; or `python -m lit_fm twin"
    with pytest.raises(ValueError, match=hint):
        load("bert-base")


def test_an_entry_whose_weights_are_nowhere_says_so(lit):
    done = lit("fit", "--config", "lora.yaml", "--model.backbone", "gopher-280b", "--run.tracker", "none")
    assert done.code == 1
    told = "without weights and tokenizer: none were published; `python -m lit_fm twin gopher-280b"
    assert told in done.err


@pytest.mark.parametrize("name", BARE)
def test_no_entry_brings_a_tokenizer_that_transformers_makes_up(name):
    with pytest.raises(ValueError, match="is an architecture, without weights and tokenizer"):
        load_tokenizer(name)
    assert load_config(name).model_type == CARDS[name].config["model_type"]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    shutil.copy(CARDS["gpt2-xl"].folder / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"has no tokenizer .* put tokenizer\.json beside it"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    "name", ["gpt2", "roberta-base", "bert-base-uncased", "xlnet-large-cased", "distilbert-base-uncased"]
)
def test_names_that_the_hub_has_without_an_owner_are_not_taken_for_slips(name):
    assert zoo.resolve(name) == name
    assert "Hugging Face did not give it" in zoo.unknown(name)


# Drafts.


@pytest.fixture
def run_folder(lit, in_tmp):
    small = ("--data.rows", 64, "--data.batch_size", 4, "--trainer.max_steps", 2, "--score.examples", 4)
    assert lit("fit", "--config", "lora.yaml", *small, "--run.tracker", "none").code == 0
    return in_tmp / "runs" / "lora" / "001"


def test_a_run_s_card_is_drafted_and_never_overwritten(lit, in_tmp, run_folder):
    done = lit("zoo", "new-card", run_folder)
    assert done.code == 0, done.err
    text = (run_folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["base_model"], head["license"], head["facts"]["trained_by"]) == ("tiny-clm", "apache-2.0", "CausalLM")
    assert "exact_match" in text
    assert "2 optimizer steps" in text
    assert "TODO" in text
    assert str(in_tmp) not in text
    assert str(ROOT) not in text
    again = lit("zoo", "new-card", run_folder)
    assert again.code == 1
    assert "nothing is overwritten: give another file by --out" in again.err
    assert lit("zoo", "new-card", run_folder, "--out", "card.md").code == 0
    shutil.copy(CARDS["tiny-clm"].folder / "config.json", run_folder)
    assert lacks(read_card(run_folder)) == []


# Twins.


def test_a_twin_is_small_and_keeps_what_its_architecture_is():
    ids = {"pad": 0, "bos": 1, "eos": 2}
    small = shrink(CARDS["palm-540b"].config, 100, ids)
    assert (small["hidden_size"], small["intermediate_size"], small["num_key_value_heads"]) == (64, 256, 1)
    small = shrink(CARDS["llama-3.1-8b"].config, 100, ids)
    assert (small["num_attention_heads"], small["num_key_value_heads"], small["vocab_size"]) == (4, 1, 100)
    assert small["rope_parameters"] == CARDS["llama-3.1-8b"].config["rope_parameters"]
    small = shrink(CARDS["bart-large"].config, 100, {"pad": 0, "eos": 1})
    assert [small[f"{key}_token_id"] for key in ("decoder_start", "forced_eos", "pad", "bos")] == [1, 1, 0, None]


def test_relative_positions_have_no_end():
    assert context_length(load_config("xlnet-large")) is None
    assert context_length(load_config("roberta-large")) == 512


def test_a_twin_is_never_written_over_another_and_needs_an_entry(lit, in_tmp):
    assert lit("twin", "gpt2-xl", "--out", "small").code == 0
    again = lit("twin", "gpt2-xl", "--out", "small")
    assert again.code == 1
    assert "nothing is overwritten: name another folder" in again.err
    assert "did you mean 'gpt2-xl'?" in lit("twin", "gpt2-lx", "--out", "other").err
    assert "width 20 must be a multiple of 8" in lit("twin", "gpt2-xl", "--out", "other", "--width", "20").err
    assert lit("twin", "tiny-clm", "--out", "sized", "--width", "48", "--layers", "3").code == 0
    sized = json.loads((in_tmp / "sized/config.json").read_text())
    assert (sized["hidden_size"], sized["num_hidden_layers"], sized["head_dim"]) == (48, 3, 12)


TEXTS = [
    f"The {a} cat {b} on the {c} chair. Then it ate {d} fish."
    for a, b, c, d in map(str.split, ("red sat old a", "small slept new one", "grey stood big the", "old lay red no"))
]
PAIRS = [
    {"prompt": f"The {a} dog is", "completion": b}
    for a, b in zip("big red old new".split(), "good bad bad good".split(), strict=True)
]


class Losses(L.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, *args):
        self.values.append(float(trainer.callback_metrics["train/loss"]))


def losses_of(card, folder, adaptation, steps=20, **more):
    """Of so many steps with the objective of a card, and what was trained."""
    L.seed_everything(0, verbose=False)
    more |= {"labels": ["bad", "good"]} if card.facts["trained_by"] == "SequenceClassification" else {}
    pairs = "labels" in more or card.facts["family"] == "transformer"  # a class, or a translation
    made = getattr(lit_fm, card.facts["trained_by"])(
        str(folder), adaptation, lambda p: torch.optim.AdamW(p, lr=5e-3), Schedule("constant", warmup=0), **more
    )
    made.configure_model()
    items = made.encode(PAIRS if pairs else [{"text": text} for text in TEXTS], 64)
    batch, seen = made.collate(items), Losses()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, use_distributed_sampler=False, callbacks=[seen],
        ).fit(made, datamodule=Fixed([batch] * steps))  # fmt: skip
    return seen.values, made


@pytest.mark.slow
@pytest.mark.parametrize("name", BARE)
def test_a_card_s_twin_learns_by_its_objective_and_by_lora(lit, tmp_path, name):
    card, folder = CARDS[name], tmp_path / "twin"
    assert lit("twin", name, "--out", folder).code == 0
    assert parameters(folder) < 1e6
    losses, made = losses_of(card, folder, lit_fm.Full(), from_scratch=True)
    assert len(losses) == 20
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), losses
    made.export(tmp_path / "trained")
    losses, made = losses_of(card, tmp_path / "trained", lit_fm.LoRA(rank=4))
    assert len(losses) == 20
    assert min(losses[-3:]) < losses[0], losses
    assert all(
        ".lora_" in n or "classifier" in n or "logits_proj" in n or "sequence_summary" in n
        for n, p in made.network.named_parameters()
        if p.requires_grad
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["gopher-280b", "modernbert-base", "t5-11b", "bart-large", "transformer-base", "xlnet-large"]
)
def test_the_commands_of_a_card_train_its_twin(lit, name):
    twin, fit = (line.split()[3:] for line in CARDS[name].text.splitlines() if re.match(r"python .* twin( |$)", line))
    assert lit(*twin).code == 0
    data = ("--data.documents", 300) if fit[2].startswith("pretrain") else ("--data.rows", 64)
    done = lit(*fit, *data, "--trainer.max_steps", 2, "--score.examples", 2, "--run.tracker", "none")
    assert done.code == 0, done.err
