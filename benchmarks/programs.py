"""The same work by trainers that are programs of their own, told what to do by files and options.

`speed.py` asks for their commands, each for the Python of an environment of its own. They make tokens and batches of the
same rows by themselves: LLaMA-Factory packs them, none seeing another (`neat_packing`); LitGPT takes one at a time, and
adds gradients up.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STAMPED = HERE / "stamps.py"
RATE, RANK, ALPHA, BATCH = 3e-4, 16, 32, 16  # as in work.py, which imports lit_fm


def llamafactory(python: Path, folder: Path, length: int) -> list:
    """`llamafactory-cli train`, with four packed rows of `length` in a step."""
    told = {"file_name": "rows.jsonl", "columns": {"prompt": "prompt", "response": "completion"}}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": told}))
    asked = {
        "model_name_or_path": str(folder / "model"), "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_rank": RANK, "lora_alpha": ALPHA, "lora_target": "all", "lora_dropout": 0.0, "dataset_dir": str(folder),
        "dataset": "rows", "template": "empty", "cutoff_len": length, "packing": True, "neat_packing": True,
        "overwrite_cache": True, "preprocessing_num_workers": 1, "output_dir": str(folder / "llamafactory"),
        "overwrite_output_dir": True, "save_strategy": "no", "report_to": "none", "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1, "learning_rate": RATE, "num_train_epochs": 1.0, "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0, "bf16": False, "use_cpu": True, "disable_gradient_checkpointing": True, "logging_steps": 1,
        "optim": "adamw_torch_fused",
    }  # fmt: skip
    config = folder / "llamafactory.yaml"
    config.write_text(json.dumps(asked))  # JSON is YAML, too
    return [python, STAMPED, "llamafactory.cli", "train", config]


def litgpt(python: Path, folder: Path, length: int) -> list:
    """`litgpt finetune_lora`, one example at a time, sixteen in a step; model and rows are converted in its environment."""
    subprocess.run([python, Path(__file__).resolve(), folder], check=True, stdout=subprocess.DEVNULL)
    options = {
        "out_dir": folder / "litgpt-out", "precision": "32-true", "data": "JSON", "data.json_path": folder / "litgpt-data",
        "data.mask_prompt": "true", "data.prompt_style.class_path": "litgpt.prompts.Default", "data.num_workers": 1,
        "lora_r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0,
        **{f"lora_{name}": "true" for name in ("query", "key", "value", "projection", "mlp")},
        "train.global_batch_size": BATCH, "train.micro_batch_size": 1, "train.epochs": 1, "train.max_seq_length": length,
        "train.lr_warmup_steps": 1, "eval.max_new_tokens": 1, "eval.max_iters": 1, "eval.final_validation": "false",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [python, STAMPED, "litgpt", "finetune_lora", folder / "litgpt", *words]


PROGRAMS = {"llamafactory": llamafactory, "litgpt": litgpt}
"""Their commands, by the name of the environment."""


def convert(folder: Path) -> None:
    """The model and the rows as LitGPT wants them; runs in its environment."""
    import shutil

    import torch
    from litgpt.config import Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from litgpt.utils import save_config
    from safetensors.torch import load_file

    model, made, data = folder / "model", folder / "litgpt", folder / "litgpt-data"
    for place in (made, data):
        place.mkdir(exist_ok=True)
    given = json.loads((model / "config.json").read_text())
    config = Config(
        name="random", block_size=given["max_position_embeddings"], vocab_size=given["vocab_size"],
        padded_vocab_size=given["vocab_size"], n_layer=given["num_hidden_layers"], n_head=given["num_attention_heads"],
        n_query_groups=given["num_key_value_heads"], n_embd=given["hidden_size"], rotary_percentage=1.0, bias=False,
        parallel_residual=False, norm_class_name="RMSNorm", norm_eps=given["rms_norm_eps"], mlp_class_name="LLaMAMLP",
        head_size=given["hidden_size"] // given["num_attention_heads"], intermediate_size=given["intermediate_size"],
    )  # fmt: skip
    weights: dict = {}
    copy_weights_hf_llama(config, {}, weights, load_file(model / "model.safetensors"))
    torch.save(weights, made / "lit_model.pth")
    save_config(config, made)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, made)
    (made / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows = [{"instruction": row["prompt"], "output": row["completion"]} for row in rows]
    (data / "train.json").write_text(json.dumps(rows))
    (data / "val.json").write_text(json.dumps(rows[:2]))


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
