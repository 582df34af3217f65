"""Passwords and keys in settings: refused, since settings are written into run folders, trackers and cards."""

import re
from typing import Any

import yaml

_NAMES = re.compile(
    r"(^|[._-])(api_?key|access_?key|secret|(hf|auth|access|api|private)_?token|token|passw(or)?d)$", re.I
)
_LONG = re.compile(r"[^\s<>]{16,}")
_VALUES = re.compile(
    r"://[^/\s:@]+:[^/\s@]+@"  # user:password@host
    r"|://[A-Za-z0-9_-]{20,}@|\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{20,}|\bxox[abpr]-\S{10,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}|\bA[KS]IA[A-Z0-9]{16}\b|\bwandb_v1_\w{20,}"
    r"|[?&](X-Amz-Signature|sig|token|key)=[^&\s]{8,}"
)


def check_no_credentials(config: str) -> None:
    """Refuse a resolved config (YAML) that holds a credential, by the name of its setting or the form of its value.

    Raises:
        ValueError: says which setting, and never its value.
    """
    for key, value in _leaves(yaml.safe_load(config), ""):
        if (
            isinstance(value, str)
            and value
            and ((_NAMES.search(key) and _LONG.fullmatch(value)) or _VALUES.search(value))
        ):
            raise ValueError(
                f"{key} holds a password or a key, which would be written into the run folder and sent to the tracker: "
                "take it out, and set it as an environment variable (HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, ...)."
            )


def _leaves(settings: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(settings, dict):
        return [
            leaf for name, value in settings.items() for leaf in _leaves(value, f"{key}.{name}" if key else str(name))
        ]
    if isinstance(settings, list):
        return [leaf for number, value in enumerate(settings) for leaf in _leaves(value, f"{key}.{number}")]
    return [(key, settings)]
