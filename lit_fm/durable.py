"""Folders that are there as a whole or not at all, and that can tell whether they are still what was written.

A folder is written beside its place, each file synced to disk, with the SHA-256 of each in a manifest; then it is renamed.
A process that is killed at any instant leaves the old state or the new one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
DRAFT = ".draft-"
"""What the name of a folder begins with while it is written."""
OLD = f"{DRAFT}old-"
"""And of one that holds what another takes the place of: until that is there, it is what there is."""


@contextmanager
def writing(path: Path, bytes_: int = 0, about: dict[str, Any] | None = None) -> Iterator[Path]:
    """A folder to write into, which is `path` once all of it is on disk.

    Args:
        bytes_: what will be written, roughly: there must be room for it.
        about: kept in the manifest.

    Raises:
        OSError: no room, or it cannot be written there; what was there before is untouched.
    """
    draft = begin(path, bytes_)
    try:
        yield draft
        commit(draft, path, about)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def begin(path: Path, bytes_: int = 0) -> Path:
    """An empty folder beside `path`, on the same disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=DRAFT))
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}): choose another run.root.") from error
    if (free := shutil.disk_usage(draft).free) < bytes_:
        draft.rmdir()
        raise OSError(
            f"{path} needs about {bytes_:,} bytes, and {free:,} are free on its disk: make room, or choose another "
            "run.root. Nothing was written over."
        )
    return draft


def commit(draft: Path, path: Path, about: dict[str, Any] | None = None, hashed: dict[str, str] | None = None) -> None:
    """Give a written folder its manifest and its name. One that was there before goes once the new one is in place.

    Args:
        hashed: files that are synced and hashed already.
    """
    files = {}
    for file in sorted(draft.iterdir()):
        known = (hashed or {}).get(file.name) or _synced(file)
        files[file.name] = {"sha256": known, "bytes": file.stat().st_size}
    manifest = draft / MANIFEST
    manifest.write_text(json.dumps({**(about or {}), "files": files}, indent=2) + "\n", encoding="utf-8")
    for written in (manifest, draft):
        _sync(written)
    old = None
    if path.exists():
        old = Path(tempfile.mkdtemp(dir=path.parent, prefix=OLD))
        path.rename(old / path.name)
    draft.rename(path)
    _sync(path.parent)
    if old:
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all."""
    draft = path.with_name(f"{DRAFT}{path.name}")
    draft.write_text(text, encoding="utf-8")
    _sync(draft)
    draft.replace(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The same, as JSON that a person can read."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """The same, as JSON Lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def free(path: Path) -> Path:
    """This path, or with a number behind its name when it is taken."""
    number, untaken = 1, path
    while untaken.exists():
        number += 1
        untaken = path.with_stem(f"{path.stem}-{number}")
    return untaken


def keep_old(path: Path, new: str | None = None) -> None:
    """Copy a file to the next free name, unless the new one is the same."""
    if path.exists() and path.read_text(encoding="utf-8") != new:
        shutil.copy2(path, free(path.with_stem(f"{path.stem}-old")))


def verify(path: Path) -> dict[str, Any]:
    """What the manifest of a folder says, after every file was read and found as it was written.

    Raises:
        ValueError: no manifest, a file that lacks, is too many or has changed.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (entry["sha256"], entry["bytes"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: its {MANIFEST} cannot be read ({error}).") from error
    there = {file.name for file in path.iterdir()} - {MANIFEST}
    found = {name for name in there if name in files or not name.startswith(".")}  # what a desktop leaves is no matter
    if found != set(files):
        lacking, extra = sorted(set(files) - found), sorted(found - set(files))
        raise ValueError(f"{path} is damaged: files lacking {lacking}, too many {extra}.")
    for name, (written, size) in files.items():
        if (path / name).stat().st_size != size or digest(path / name) != written:
            raise ValueError(f"{path} is damaged: {name} is not what was written.")
    return manifest


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written, and put back what they were about to replace."""
    for old in folder.glob(f"{OLD}*/*"):
        if not (folder / old.name).exists():
            old.rename(folder / old.name)
    for draft in folder.glob(f"{DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synced(path: Path) -> str:
    _sync(path)
    return digest(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
