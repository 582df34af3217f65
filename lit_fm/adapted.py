"""Load what a run, an adapter folder or a backbone's name stands for: a network that writes, and its tokenizer."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from lit_fm import adapt
from lit_fm.adapt.unquantised import unquantised
from lit_fm.backbone import fit_embeddings, load_config, load_network, load_tokenizer


def load_adapted(name: str, dtype: str = "float32") -> tuple[Any, PreTrainedTokenizerBase]:
    """Network that writes, and tokenizer, of a run folder, an adapter folder (peft's format), or a backbone's name.

    Raises:
        ValueError: it writes nothing: it fills blanks or tells classes apart.
    """
    exports = [folder for folder in (Path(name, "adapter"), Path(name, "model")) if folder.is_dir()]
    folder = exports[0] if exports else Path(name)
    if (folder / "run.json").is_file() and not exports:
        raise ValueError(
            f"the run {name} has exported nothing: it did not end. Its checkpoints are in {name}/checkpoints."
        )
    if not (folder / "adapter_config.json").is_file():
        return load_network(str(folder), writer_class(str(folder)), dtype=dtype), load_tokenizer(str(folder))
    return load_over(folder, dtype=dtype)


def load_over(folder: Path, adapter: str = "default", dtype: str = "float32") -> tuple[Any, PreTrainedTokenizerBase]:
    """Backbone with the adapter of a folder, and tokenizer.

    Args:
        adapter: what peft is to call it.

    Raises:
        ValueError: it writes nothing.
    """
    about = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if about.get("task_type") in ("SEQ_CLS", "TOKEN_CLS") or (folder / "labels.json").is_file():
        raise ValueError(f"{folder} tells classes apart and writes no text: `predict --run` names them.")
    base = about["base_model_name_or_path"]
    tokenizer = load_tokenizer(str(folder) if (folder / "tokenizer.json").is_file() else base)
    network = load_network(base, writer_class(base), dtype=dtype, bits=adapt.bits_of(folder))
    fit_embeddings(network, tokenizer)
    return put_in(network, folder, adapter), tokenizer


def put_in(network: Any, folder: Path, adapter: str = "default") -> Any:
    """A backbone's network with what a folder holds of an adaptation: peft's format, or ours.

    Raises:
        ValueError: it is of an adaptation that `lit_fm.adapt` does not name. No class is imported because a
            file says so.
    """
    about = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if name := about.get("lit_fm_adaptation"):
        if not (made := getattr(adapt, name, None)):
            raise ValueError(
                f"{folder} was learnt by {name}, which lit_fm.adapt does not know: name it in the "
                "__init__.py there, or use `predict --run`."
            )
        return adapt.load_delta(made(**about["settings"]), network, folder)
    with unquantised():
        from peft import PeftModel

        return PeftModel.from_pretrained(network, str(folder), adapter)


def writer_class(name: str) -> Any:
    """The class of a backbone's network as one that writes."""
    config = load_config(name)
    made = (config.architectures or [""])[0]
    if made.endswith(("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")):
        raise ValueError(
            f"{name} is a {made}, which writes no text: `predict` fills its blanks or names classes, with the run's config."
        )
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
