"""Real tiny backbones, made here: no downloads, no mocks."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # several of them share the cores
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.update(WANDB_MODE="disabled", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", COLUMNS="160")
ROOT = Path(__file__).parents[1]
GUIDE = next(path for path in (ROOT / "GUIDE.md", ROOT / "README.md") if path.exists())
"""README; where a project was made of the template, which has a README of its own, the template's."""
ROWS = [{"prompt": f"say {i}", "completion": f'{i}, "quoted"\nand broken'} for i in range(30)]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["LIT_FM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def make_backbone(tmp_path_factory):
    """Make a folder with a random network of a transformers configuration, and a zoo entry's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    from lit_fm.backbone import load_tokenizer

    classes = {"tiny-clm": AutoModelForCausalLM, "tiny-mlm": AutoModelForMaskedLM, "tiny-t5": AutoModelForSeq2SeqLM}

    def make(name, config, dtype=torch.float32, tokenizer="tiny-clm"):
        folder = tmp_path_factory.getbasetemp() / f"backbone-{name}-{tokenizer}"
        if not folder.exists():
            torch.manual_seed(0)
            classes[tokenizer].from_config(config).to(dtype).save_pretrained(folder)
            load_tokenizer(tokenizer).save_pretrained(folder)
        return str(folder)

    return make


def llama_config(**changes):
    from transformers import LlamaConfig

    small = {
        "vocab_size": 2048,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaConfig(**{**small, **changes})


def causal_configs():
    """Random-weight configurations of several architectures, by name."""
    from transformers import BloomConfig, GPT2Config, GPTNeoXConfig, OPTConfig, Qwen3Config

    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 2048}
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    deep = {"intermediate_size": 64, "max_position_embeddings": 512}
    still = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    return {
        "llama": llama_config(),
        "qwen3": Qwen3Config(num_key_value_heads=2, head_dim=8, **size, **deep, **ids),
        "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **still, **ids),
        "opt": OPTConfig(ffn_dim=64, word_embed_proj_dim=32, dropout=0.0, max_position_embeddings=512, **size, **ids),
        "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=4, **ids),
        "neox": GPTNeoXConfig(**size, **deep, **ids),
    }


def masked_configs():
    """Of encoders, by name; without dropout."""
    from transformers import BertConfig, ModernBertConfig, RobertaConfig

    size = {
        "vocab_size": 2048,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0}
    modern = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    return {
        "bert": BertConfig(**size, **still, initializer_range=0.2),
        "roberta": RobertaConfig(
            **size, **{**still, "pad_token_id": 0}, max_position_embeddings=513, initializer_range=0.2
        ),
        "modernbert": ModernBertConfig(**size, **modern, max_position_embeddings=512, reference_compile=False),
    }


def seq2seq_configs():
    """Of encoder-decoders, by name; without dropout."""
    from transformers import BartConfig, T5Config

    ids = {"vocab_size": 2048, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    deep = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    thin = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0, "max_position_embeddings": 512}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    return {
        "t5": T5Config(**ids, **t5),
        "t5-v1.1": T5Config(
            **ids, **t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, initializer_factor=0.3
        ),
        "bart": BartConfig(**ids, **deep, **thin, d_model=32, bos_token_id=1, forced_eos_token_id=1, init_std=0.2),
    }


@pytest.fixture(scope="session")
def llama(make_backbone):
    return make_backbone("llama", llama_config())


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lit(in_tmp, capfd):
    """Run `python -m lit_fm` in this process, in an empty folder: its exit code and what it printed."""

    def call(*args):
        from lit_fm.cli import main

        argv, code = sys.argv, 0
        try:
            main([str(a) for a in args])
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.argv = argv
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call


def command(*args, cwd, **env):
    """Run `python -m lit_fm` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lit_fm", *map(str, args)],
        cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip


QUICK = ("--run.tracker", "none", "--score.examples", "8", "--data.rows", "64", "--data.batch_size", "8")


def write_rows(folder, suffix, rows=ROWS, stem="train"):
    """A file of rows, with a mark at its start and line ends of Windows where the format allows them."""
    import pyarrow as pa
    from pyarrow import parquet

    text, path = io.StringIO(newline=""), folder / f"{stem}{suffix}"
    kind = suffix.removesuffix(".gz")
    if kind == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
        return path
    if kind in (".csv", ".tsv"):
        writer = csv.DictWriter(text, rows[0].keys(), delimiter="\t" if kind == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    else:
        text.write(json.dumps(rows) if kind == ".json" else "\r\n".join(map(json.dumps, rows)) + "\n\n")
    written = text.getvalue().encode("utf-8-sig")
    path.write_bytes(gzip.compress(written) if suffix.endswith(".gz") else written)
    return path
