"""A folder that `export` or `merge` made, on the Hugging Face Hub."""

from pathlib import Path

from lit_fm.adapt.delta import CONFIG
from lit_fm.screen import console

SAFE = {".safetensors", ".json", ".md", ".txt", ".model", ".jinja"}
"""Endings of what is sent: nothing that would be unpickled."""


def push(folder: str, to: str, public: bool = False, again: bool = False) -> None:
    """Send a folder to the Hub, as a repository of its own.

    Args:
        folder: what `export` or `merge` wrote.
        to: USER/NAME.
        public: anyone may read it.
        again: a further version of a repository that is there.

    Raises:
        FileNotFoundError: it is no such folder.
        FileExistsError: there is such a repository.
        ValueError: it holds something else, or the Hub refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    path = Path(folder)
    if not (path / "README.md").is_file() or not any((path / name).is_file() for name in (CONFIG, "config.json")):
        raise FileNotFoundError(f"{folder} is no exported model with a card: make one by `export RUN --out {folder}`.")
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    if strange := [str(file) for file in files if file.suffix not in SAFE or file.is_symlink()]:
        raise ValueError(f"{strange[0]} is not what export or merge writes: take it out of {folder}.")
    api = HfApi()
    try:
        if not again and api.repo_exists(to):
            raise FileExistsError(f"{to} is on the Hub already: name another, or add --again true for a new version.")
        api.create_repo(to, private=not public, exist_ok=again)
        made = api.upload_folder(repo_id=to, folder_path=path, commit_message="By lit_fm push")
    except LocalTokenNotFoundError:
        raise ValueError("nobody is logged in: run `hf auth login`, or set HF_TOKEN.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else ""
        why = "log in by `hf auth login`, or set HF_TOKEN to a token that may write" if status in (401, 403) else error
        raise ValueError(f"the Hub refused {to} ({status}): {why}.") from None
    console.print(f"{len(files)} files, {'public' if public else 'private'}: {made}", markup=False, soft_wrap=True)
