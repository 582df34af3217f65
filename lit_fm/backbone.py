"""Load a backbone, network and tokenizer: from a zoo entry, a Hugging Face id or a folder, in an explicit dtype."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from lit_fm import zoo

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_config(name: str) -> PretrainedConfig:
    """The architecture of a backbone.

    Raises:
        ValueError: neither a folder nor a zoo entry nor an id that Hugging Face gives.
    """
    path = zoo.resolve(name)
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        if not Path(path).is_dir():
            raise ValueError(zoo.unknown(name)) from error
        raise ValueError(f"{path}/config.json cannot be read: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, without the lists that some append."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone, without truncation or padding of its own.

    Raises:
        ValueError: none was found, or it cannot say which characters a token stands for.
    """
    path = zoo.resolve(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        load_config(name)  # there may be no such backbone at all
        raise ValueError(f"the backbone {name!r} has no tokenizer ({path}): put tokenizer.json beside it.") from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {name!r} ({type(tokenizer).__name__}) gives no character offsets: use one with a "
            "tokenizer.json, so that the loss can be put on the answer exactly."
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def load_network(name: str, auto_class: Any, dtype: str = "float32", from_scratch: bool = False) -> PreTrainedModel:
    """A network in training mode, on the CPU.

    Args:
        auto_class: one of transformers' `AutoModelFor...`.
        dtype: of the weights, whatever the checkpoint was saved in.
        from_scratch: random weights from the architecture alone.

    Raises:
        ValueError: no weights, or weights that do not fill the architecture.
    """
    config, path = load_config(name), zoo.resolve(name)
    if from_scratch:
        network = _tried(auto_class.from_config, name, config, dtype=DTYPES[dtype])
    else:
        if Path(path).is_dir() and not any(Path(path).glob("*.safetensors")) and not any(Path(path).glob("*.bin")):
            raise ValueError(
                f"{path} holds no weights: set `model.from_scratch: true`, or give a folder that has some."
            )
        network, info = _tried(auto_class.from_pretrained, name, path, dtype=DTYPES[dtype], output_loading_info=True)
        if info["missing_keys"] or info["mismatched_keys"]:
            lacking = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
            raise ValueError(
                f"the weights in {path} lack {len(lacking)} tensors that {type(network).__name__} needs, such as "
                f"{lacking[0]}: they would be random. Use a checkpoint of this architecture."
            )
    return network.train()


def _tried(load: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return load(*args, **kwargs)
    except Exception as error:  # of safetensors, transformers, pickle: a person cannot know which
        raise ValueError(f"the backbone {name!r} cannot be loaded: {first_line(error)}") from error


def load_adapted(name: str, auto_class: Any, dtype: str = "float32") -> tuple[Any, PreTrainedTokenizerBase]:
    """Network and tokenizer of a run folder, an adapter folder (peft's format), or anything `load_network` takes."""
    exports = [folder for folder in (Path(name, "adapter"), Path(name, "model")) if folder.is_dir()]
    folder = exports[0] if exports else Path(name)
    if (folder / "run.json").is_file() and not exports:
        raise ValueError(
            f"the run {name} has exported nothing: it did not end. Its checkpoints are in {name}/checkpoints."
        )
    if not (folder / "adapter_config.json").is_file():
        return load_network(str(folder), auto_class, dtype), load_tokenizer(str(folder))
    from peft import PeftConfig, PeftModel

    base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    network = PeftModel.from_pretrained(load_network(base, auto_class, dtype), str(folder))
    return network, load_tokenizer(str(folder) if (folder / "tokenizer.json").is_file() else base)


def context_length(config: PretrainedConfig) -> int | None:
    """The longest sequence that the architecture is made for, in tokens, where it says so."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
