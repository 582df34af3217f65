"""Load a backbone, network and tokenizer: from a zoo entry, a Hugging Face id or a folder, in an explicit dtype."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import logging as transformers_logging

from lit_fm import zoo
from lit_fm.quantise import outlined, quantisation, right_on_cpu

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

Dtype = Literal["float32", "bfloat16", "float16"]
_POSITIONS_BEHIND_PADDING = {"roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "longformer", "mpnet"}
_STARTS_WITH_PADDING = {"t5", "mt5", "umt5", "longt5", "switch_transformers"}
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
    if Path(path).is_dir() and not zoo.has_tokenizer(Path(path)):
        load_config(name)  # it may be no backbone at all
        raise ValueError(zoo.no_weights(name))
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


def load_network(name: str, auto_class: Any, **how: Any) -> PreTrainedModel:
    """A network in training mode, on the CPU.

    Args:
        auto_class: one of transformers' `AutoModelFor...`.
        how: `dtype` of the weights, whatever the checkpoint was saved in (float32 where nothing is said);
            `from_scratch`, random weights from the architecture alone; `bits`, 4 or 8, to quantise linear layers,
            for use on `device`.

    Raises:
        ValueError: no weights, or weights that do not fill the architecture.
    """
    network, lacking = _load(name, auto_class, load_config(name), **how)
    if lacking:
        raise _unfilled(name, network, lacking)
    return network


def load_with_head(
    name: str, auto_class: Any, labels: list[str], pad: int | None, **how: Any
) -> tuple[PreTrainedModel, list[str]]:
    """A network with a new last layer, and the names of the modules in it that are new.

    Args:
        labels: the classes that the head tells apart.
        pad: the token that fills rows up, where the architecture names none.

    Raises:
        ValueError: weights besides the head's are lacking.
    """
    config = load_config(name)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.num_labels = len(labels)
    if config.pad_token_id is None:
        config.pad_token_id = pad if pad is not None else 0
    if how.get("bits"):  # a random head would stay random in 4 bits
        with torch.device("meta"):
            outline = auto_class.from_config(config)
        how["keep"] = [module for module, _ in outline.named_modules() if _HEAD.search(module)]
    network, lacking = _load(name, auto_class, config, **how)
    new = _whole_modules(network, lacking)
    if foreign := [module for module in new if not _HEAD.search(module)]:
        raise _unfilled(name, network, foreign)
    return network, new


_HEAD = re.compile(
    r"(^|\.)(classifier|score|pooler|head|pre_classifier|classification_head|sequence_summary|logits_proj)(\.|$)"
)


def _whole_modules(network: Any, lacking: list[str]) -> list[str]:
    """The largest modules all of whose weights are lacking."""
    missing = set(lacking)
    found: list[str] = []
    for name, module in network.named_modules():
        own = {f"{name}.{key}" for key, _ in module.named_parameters()}
        if name and own and own <= missing and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    covered = {key for key in missing if any(key.startswith(f"{name}.") for name in found)}
    return [*found, *sorted(missing - covered)]


def _load(
    name: str,
    auto_class: Any,
    config: Any,
    dtype: str = "float32",
    from_scratch: bool = False,
    bits: int | None = None,
    device: str = "cpu",
    keep: Sequence[str] = (),
) -> tuple[PreTrainedModel, list[str]]:
    """A network in training mode, and the names of weights that its files do not hold."""
    path = zoo.resolve(name)
    if torch.get_default_device().type == "meta":  # a plan: shapes are all that is wanted
        return outlined(auto_class, config, DTYPES[dtype], bits, keep), []
    if from_scratch and bits:
        raise ValueError(
            f"model.from_scratch: weights of {bits} bits cannot learn: load a backbone, or leave out bits."
        )
    if from_scratch:
        return _tried(auto_class.from_config, name, config, dtype=DTYPES[dtype]).train(), []
    if Path(path).is_dir() and not zoo.has_weights(Path(path)):
        raise ValueError(zoo.no_weights(name))
    more = {"config": config, "dtype": DTYPES[dtype], "output_loading_info": True, "ignore_mismatched_sizes": True}
    if bits:
        more |= {"quantization_config": quantisation(bits, DTYPES[dtype], keep), "device_map": {"": device}}
    network, info = _tried(auto_class.from_pretrained, name, path, **more)
    if bits == 4:
        right_on_cpu(network)
    return network.train(), sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])


def _unfilled(name: str, network: Any, lacking: list[str]) -> ValueError:
    return ValueError(
        f"the weights in {zoo.resolve(name)} lack {len(lacking)} tensors that {type(network).__name__} needs, such as "
        f"{lacking[0]}: they would be random. Use a checkpoint of this architecture."
    )


def load_vectors(name: str) -> torch.Tensor:
    """The input embeddings of a backbone: (vocabulary, width)."""
    network, lacking = _load(name, AutoModel, load_config(name))  # a pooler, which some lack, is not asked for
    vectors = network.get_input_embeddings().weight
    if any(network.get_parameter(key) is vectors for key in lacking):
        raise _unfilled(name, network, lacking)
    return vectors  # type: ignore[return-value]


def _tried(load: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return load(*args, **kwargs)
    except Exception as error:  # of safetensors, transformers, pickle: a person cannot know which
        if "Unrecognized configuration class" in str(error):
            kind, wanted = load_config(name).model_type, load.__self__.__name__.removeprefix("AutoModel")
            raise ValueError(
                f"the backbone {name!r} is a {kind}, which does not come {wanted}: choose another objective or backbone."
            ) from error
        raise ValueError(f"the backbone {name!r} cannot be loaded: {first_line(error)}") from error


def decoder_start(config: PretrainedConfig) -> int:
    """The token that an encoder-decoder's answers start with.

    Raises:
        ValueError: the configuration does not say it.
    """
    found = getattr(config, "decoder_start_token_id", None)
    if found is None and config.model_type in _STARTS_WITH_PADDING:
        found = config.pad_token_id
    if found is None:
        raise ValueError(
            f"the configuration ({config.model_type}) has no decoder_start_token_id: write it into config.json."
        )
    return found


def special_ids(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], setting: str) -> tuple[int, ...]:
    """Ids of tokens that must be in the vocabulary.

    Raises:
        ValueError: one is not; says which setting asks for it.
    """
    known = tokenizer.get_vocab()
    if lacking := [token for token in tokens if token not in known]:
        raise ValueError(
            f"{setting}: the tokenizer has no token {lacking[0]!r}: name those that it has, or make one with "
            "`train-tokenizer --extra_tokens`."
        )
    return tuple(known[token] for token in tokens)


def fit_embeddings(network: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Lengthen the embeddings to the tokenizer's vocabulary. New rows are drawn close to the mean of the others."""
    if len(tokenizer) > network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(len(tokenizer))


def context_length(config: PretrainedConfig) -> int | None:
    """The longest sequence that the architecture is made for, in tokens, where it says so."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and longest < 0:  # XLNet says -1: relative positions have no end
        return None
    # Positions of RoBERTa and its kin begin behind the number of the padding token.
    behind = config.model_type in _POSITIONS_BEHIND_PADDING
    return longest - config.pad_token_id - 1 if longest and behind and config.pad_token_id is not None else longest
