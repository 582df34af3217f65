"""Published parameter counts come out, on networks of the real shapes: meta tensors hold no memory.

Three oracles, none of them our code: what papers and libraries print, the papers' formulas, and peft with settings of its
own choice where it has a default.
"""

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from lit_fm import IA3, AdaLoRA, Bottleneck, LoRA, Prefix, Selective, SoftPrompt
from lit_fm.screen import learnable

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
T5_LARGE = {"d_model": 1024, "d_kv": 64, "num_layers": 24, "num_heads": 16}
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
GATED = {"feed_forward_proj": "gated-gelu"}
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
GPT_3 = {"hidden_size": 12288, "ffn_dim": 49152, "num_hidden_layers": 96, "num_attention_heads": 96}
SEQ2SEQ, CAUSAL = "SEQ_2_SEQ_LM", "CAUSAL_LM"
# Class, configuration, peft's word for the task, and the size that is published.
NETWORKS = {
    "bert-base": (BertModel, BertConfig(), None, 109_482_240),
    "bert-large": (BertModel, BertConfig(**LARGE), None, 335_141_888),
    "roberta-base": (RobertaModel, RobertaConfig(**ROBERTA), None, 124_645_632),
    "roberta-large": (RobertaModel, RobertaConfig(**ROBERTA, **LARGE), None, 355_359_744),
    "t5-large": (
        T5ForConditionalGeneration, T5Config(**T5_LARGE, d_ff=4096, vocab_size=32128), SEQ2SEQ, 737_668_096,
    ),
    # Of these two, transformers 5 ties the head to the embeddings, and the published sizes count it apart.
    "t5-v1.1-large": (
        T5ForConditionalGeneration, T5Config(**T5_LARGE, **GATED, d_ff=2816, vocab_size=32128), SEQ2SEQ, None,
    ),
    "mt0-large": (
        T5ForConditionalGeneration, T5Config(**T5_LARGE, **GATED, d_ff=2816, vocab_size=250112), SEQ2SEQ, None,
    ),
    "gpt2": (GPT2LMHeadModel, GPT2Config(), CAUSAL, 124_439_808),
    "gpt2-medium": (GPT2LMHeadModel, GPT2Config(n_embd=1024, n_layer=24, n_head=16), CAUSAL, 354_823_168),
    "llama-7b": (LlamaForCausalLM, LlamaConfig(**LLAMA_7B, vocab_size=32000), CAUSAL, 6_738_415_616),
    # OPT-175B has GPT-3's shape, and queries and values apart, as in the LoRA paper.
    "gpt-3": (OPTForCausalLM, OPTConfig(**GPT_3, word_embed_proj_dim=12288), CAUSAL, None),
}  # fmt: skip


def network(name):
    kind, config, _, _ = NETWORKS[name]
    with torch.device("meta"):
        return kind(config)


def learns(name, adaptation):
    return learnable(adaptation.apply(network(name), NETWORKS[name][2]))[0]


@pytest.mark.parametrize("name", [name for name, (*_, size) in NETWORKS.items() if size])
def test_the_shapes_are_the_real_ones(name):
    assert sum(p.numel() for p in network(name).parameters()) == NETWORKS[name][3]


def test_lora_of_rank_8_learns_86_percent_less_of_one_matrix_of_512_by_64():
    one_head = LlamaConfig(  # d_model x d_k of Vaswani et al. 2017, table 3: of the only key head
        hidden_size=512, num_attention_heads=8, num_key_value_heads=1, head_dim=64, num_hidden_layers=1
    )
    with torch.device("meta"):
        whole, low = LlamaForCausalLM(one_head), LlamaForCausalLM(one_head)
    assert whole.model.layers[0].self_attn.k_proj.weight.shape == (64, 512)
    all_of_it = learnable(Selective(names=r"k_proj").apply(whole, CAUSAL))[0]
    rank_8 = learnable(LoRA(rank=8, targets="k_proj").apply(low, CAUSAL))[0]
    assert all_of_it == 32_768
    assert rank_8 == 4_608
    assert round(100 * (1 - rank_8 / all_of_it)) == 86


# What others print.

ATTENTION = {
    "bert-base": ["query", "value"], "roberta-base": ["query", "value"], "roberta-large": ["query", "value"],
    "t5-large": ["q", "v"], "mt0-large": ["q", "v"], "gpt2": ["c_attn"], "llama-7b": ["q_proj", "v_proj"],
    "gpt-3": ["q_proj", "v_proj"],
}  # fmt: skip
EXACT = {
    # Training logs of alpaca-lora: "trainable params: 4194304 || all params: 6742609920".
    "alpaca-lora": ("llama-7b", lambda: LoRA(rank=8, targets=ATTENTION["llama-7b"]), 4_194_304),
    # Logs of QLoRA-like runs, LoRA of rank 16 on all seven linear layers of Llama-7B: "Trainable Parameters: 39,976,960".
    "all linear layers": ("llama-7b", lambda: LoRA(rank=16), 39_976_960),
    # peft's README: mt0-large, r=8: "trainable params: 2359296 || all params: 1231940608".
    "peft's LoRA": ("mt0-large", lambda: LoRA(rank=8, targets=ATTENTION["mt0-large"]), 2_359_296),
    # peft's guide to IA3, mt0-large: "trainable params: 282,624 || all params: 1,229,863,936".
    "peft's IA3": ("mt0-large", lambda: IA3(), 282_624),
    # peft's guide to prefix tuning, t5-large, 20 tokens: "trainable params: 983040 || all params: 738651136".
    "peft's prefix": ("t5-large", lambda: Prefix(tokens=20), 983_040),
    # AdapterHub's `adapter_summary()` of roberta-base (post on adapter-transformers 3.1, 2022): width 48, 30 tokens.
    "AdapterHub's houlsby": ("roberta-base", lambda: Bottleneck(width=48), 1_789_056),
    "AdapterHub's pfeiffer": ("roberta-base", lambda: Bottleneck(width=48, placement="pfeiffer"), 894_528),
    "AdapterHub's prefix": ("roberta-base", lambda: Prefix(tokens=30, mlp=True, width=512), 9_872_384),
    "AdapterHub's flat prefix": ("roberta-base", lambda: Prefix(tokens=30), 552_960),
    "AdapterHub's LoRA": ("roberta-base", lambda: LoRA(rank=8, targets=ATTENTION["roberta-base"]), 294_912),
    # Lester et al. 2021, table 4, T5 v1.1 Large.
    "prompt of 1": ("t5-v1.1-large", lambda: SoftPrompt(tokens=1), 1_024),
    "prompt of 5": ("t5-v1.1-large", lambda: SoftPrompt(tokens=5), 5_120),
    "prompt of 20": ("t5-v1.1-large", lambda: SoftPrompt(tokens=20), 20_480),
    "prompt of 50": ("t5-v1.1-large", lambda: SoftPrompt(tokens=50), 51_200),
    "prompt of 100": ("t5-v1.1-large", lambda: SoftPrompt(tokens=100), 102_400),
    "prompt of 150": ("t5-v1.1-large", lambda: SoftPrompt(tokens=150), 153_600),
}


@pytest.mark.parametrize("source", EXACT)
def test_exact_counts_that_others_print_come_out(source):
    name, adaptation, published = EXACT[source]
    assert learns(name, adaptation()) == published


def test_a_new_head_counts_as_in_pefts_guide_to_p_tuning():
    # roberta-large, two classes, 20 tokens: "trainable params: 1351938 || all params: 355662082".
    with torch.device("meta"):
        made = RobertaForSequenceClassification(RobertaConfig(**ROBERTA, **LARGE, num_labels=2))
    made = SoftPrompt(tokens=20, encoder="mlp", width=128).apply(made, "SEQ_CLS", ["classifier"])
    assert learnable(made)[0] == 1_351_938


MILLIONS = {
    # Hu et al. 2021, LoRA, table 2: rank 8 on queries and values (table 9); BitFit's row.
    "RoBERTa base, LoRA": ("roberta-base", lambda: LoRA(rank=8, targets=ATTENTION["roberta-base"]), 0.3),
    "RoBERTa large, LoRA": ("roberta-large", lambda: LoRA(rank=8, targets=ATTENTION["roberta-large"]), 0.8),
    "RoBERTa base, BitFit": ("roberta-base", lambda: Selective(["biases"]), 0.1),
    # The same, table 4: LoRA of rank 1 and 8 on queries and values, Houlsby's adapters of width 1 and 8.
    "GPT-3, LoRA, rank 1": ("gpt-3", lambda: LoRA(rank=1, targets=ATTENTION["gpt-3"]), 4.7),
    "GPT-3, LoRA, rank 8": ("gpt-3", lambda: LoRA(rank=8, targets=ATTENTION["gpt-3"]), 37.7),
    "GPT-3, Houlsby, width 1": ("gpt-3", lambda: Bottleneck(width=1), 7.1),
    "GPT-3, Houlsby, width 8": ("gpt-3", lambda: Bottleneck(width=8), 40.1),
}


@pytest.mark.parametrize("source", MILLIONS)
def test_millions_in_the_lora_paper_come_out(source):
    name, adaptation, published = MILLIONS[source]
    assert round(learns(name, adaptation()) / 1e6, 1) == published


QKV_UP_DOWN = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
PERCENT = {
    # Ben Zaken et al. 2022, BitFit, section 3: of BERT-base and BERT-large; section 1: two kinds of biases alone.
    "BERT base": ("bert-base", lambda: Selective(["biases"]), "0.09"),
    "BERT large": ("bert-large", lambda: Selective(["biases"]), "0.08"),
    "queries' and middle biases": (
        "bert-base", lambda: Selective(names=r"(query|intermediate\.dense)\.bias$"), "0.04",
    ),
    # Li and Liang 2021, prefix tuning, abstract; GPT-2 medium, 10 tokens for tables (section 7.1).
    "prefix": ("gpt2-medium", lambda: Prefix(tokens=10), "0.1"),
    # Liu et al. 2024, DoRA, table 1, LLaMA-7B: LoRA and DoRA of rank 32, DoRA of half of it; an adapter of width 256
    # behind each feed-forward layer (Hu et al. 2023, LLM-Adapters).
    "LoRA": ("llama-7b", lambda: LoRA(rank=32, targets=QKV_UP_DOWN), "0.83"),
    "DoRA": ("llama-7b", lambda: LoRA(rank=32, targets=QKV_UP_DOWN, dora=True), "0.84"),
    "DoRA of half the rank": ("llama-7b", lambda: LoRA(rank=16, targets=QKV_UP_DOWN, dora=True), "0.43"),
    "series adapter": ("llama-7b", lambda: Bottleneck(width=256, placement="pfeiffer"), "0.99"),
}  # fmt: skip


@pytest.mark.parametrize("source", PERCENT)
def test_percentages_in_papers_come_out(source):
    name, adaptation, published = PERCENT[source]
    made = adaptation().apply(network(name), NETWORKS[name][2])
    percent = 100 * learnable(made)[0] / sum(p.numel() for p in made.parameters())
    assert f"{percent:.{len(published) - 2}f}" == published


# The papers' formulas, on the four shapes: width, attention and feed-forward sub-layers, stack that reads a prefix, weights
# of all norms (T5 and Llama scale, BERT and GPT-2 shift too).

FOUR = {
    "bert-base": (768, 12, 12, 12, 25 * 2 * 768),
    "t5-large": (1024, 24 + 2 * 24, 24 + 24, 24, (2 * 24 + 1 + 3 * 24 + 1) * 1024),
    "gpt2": (768, 12, 12, 12, 25 * 2 * 768),
    "llama-7b": (4096, 32, 32, 32, 65 * 4096),
}


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("name", FOUR)
def test_lora_on_queries_and_values_follows_its_formula(name, rank):
    """Hu et al. 2021, section 5.1: 2 x adapted matrices x width x rank.

    GPT-2's one matrix for all three comes to the same: width + 3 x width.
    """
    width, attentions, *_ = FOUR[name]
    assert learns(name, LoRA(rank=rank, targets=ATTENTION[name])) == 2 * (2 * attentions) * width * rank


@pytest.mark.parametrize("inner", [8, 64])
@pytest.mark.parametrize("name", FOUR)
def test_bottleneck_adapters_follow_their_formula(name, inner):
    """Houlsby et al. 2019, section 2.1: 2 m d + d + m behind each of the two kinds of sub-layers, norms beside."""
    width, attentions, feed_forwards, _, norms = FOUR[name]
    adapter = 2 * inner * width + width + inner
    assert learns(name, Bottleneck(width=inner)) == (attentions + feed_forwards) * adapter
    assert learns(name, Bottleneck(width=inner, norms=True)) == (attentions + feed_forwards) * adapter + norms
    assert learns(name, Bottleneck(width=inner, placement="pfeiffer")) == feed_forwards * adapter


@pytest.mark.parametrize("tokens", [1, 20])
@pytest.mark.parametrize("name", FOUR)
def test_a_soft_prompt_is_tokens_by_width(name, tokens):
    """Lester et al. 2021, section 2."""
    assert learns(name, SoftPrompt(tokens=tokens)) == tokens * FOUR[name][0]


@pytest.mark.parametrize("tokens", [1, 20])
@pytest.mark.parametrize("name", FOUR)
def test_a_prefix_is_a_key_and_a_value_of_each_layer_for_each_token(name, tokens):
    """Li and Liang 2021, section 4.2."""
    width, _, _, layers, _ = FOUR[name]
    assert learns(name, Prefix(tokens=tokens)) == layers * 2 * tokens * width


def test_bitfit_learns_eleven_widths_of_biases_a_layer():
    """Ben Zaken et al. 2022, section 3: 4 of attention, 4 + 1 of the feed-forward layer, 2 norms.

    Beside the layers: of BERT, the embeddings' norm and the pooler; of GPT-2, the last norm.
    """
    assert learns("bert-base", Selective(["biases"])) == (12 * 11 + 2) * 768 == 102_912
    assert learns("gpt2", Selective(["biases"])) == (12 * 11 + 1) * 768 == 102_144


@pytest.mark.parametrize("name", ["t5-large", "llama-7b"])
def test_bitfit_is_refused_where_there_is_no_bias(name):
    with pytest.raises(ValueError, match="has no biases of its own"):
        learns(name, Selective(["biases"]))


# peft, asked directly. It knows queries and values by itself.


def by_peft(name, kind, **settings):
    import peft

    task = NETWORKS[name][2] or "FEATURE_EXTRACTION"
    made = peft.get_peft_model(network(name), getattr(peft, kind)(task_type=task, **settings))
    return made.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("name", FOUR)
def test_low_rank_updates_are_as_many_as_pefts(name):
    targets = ATTENTION[name]
    assert learns(name, LoRA(rank=8, targets=targets)) == by_peft(name, "LoraConfig", r=8)
    assert learns(name, LoRA(rank=8)) == by_peft(name, "LoraConfig", r=8, target_modules="all-linear")
    assert learns(name, LoRA(rank=8, targets=targets, dora=True)) == by_peft(name, "LoraConfig", r=8, use_dora=True)
    adalora = by_peft(name, "AdaLoraConfig", init_r=12, target_r=8, total_step=1000, target_modules=targets)
    assert learns(name, AdaLoRA(rank=8, first_rank=12, targets=targets)) == adalora


@pytest.mark.parametrize("name", FOUR)
def test_prompts_and_prefixes_are_as_many_as_pefts(name):
    shared = {"num_virtual_tokens": 20}
    one = {**shared, "num_transformer_submodules": 1}  # peft would give T5's decoder a prompt too; Lester et al. do not
    assert learns(name, SoftPrompt(tokens=20)) == by_peft(name, "PromptTuningConfig", **one)
    mlp = {**one, "encoder_hidden_size": 128}
    assert learns(name, SoftPrompt(tokens=20, encoder="mlp", width=128)) == by_peft(name, "PromptEncoderConfig", **mlp)
    lstm = {**mlp, "encoder_reparameterization_type": "LSTM"}
    assert learns(name, SoftPrompt(tokens=20, encoder="lstm", width=128)) == by_peft(
        name, "PromptEncoderConfig", **lstm
    )
    assert learns(name, Prefix(tokens=20)) == by_peft(name, "PrefixTuningConfig", **shared)
    projected = {**shared, "prefix_projection": True, "encoder_hidden_size": 64}
    assert learns(name, Prefix(tokens=20, mlp=True, width=64)) == by_peft(name, "PrefixTuningConfig", **projected)


@pytest.mark.parametrize("name", ["t5-large", "gpt2", "llama-7b"])  # of BERT, peft scales attention's output besides
def test_ia3_factors_are_as_many_as_pefts(name):
    assert learns(name, IA3()) == by_peft(name, "IA3Config")


@pytest.mark.parametrize("name", ["bert-base", "gpt2"])
def test_biases_are_as_many_as_those_that_pefts_lora_can_learn_besides(name):
    besides = by_peft(name, "LoraConfig", bias="all") - by_peft(name, "LoraConfig", bias="none")
    assert learns(name, Selective(["biases"])) == besides
