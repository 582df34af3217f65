"""Files of other machines, by fsspec: copied once, then read as local ones."""

import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from lit_fm.data.tokens import cache_folder, fingerprint

_STATE = ("size", "ETag", "Last-Modified", "LastModified", "Content-MD5", "mtime", "created", "blob_id", "generation")


def listing(url: str) -> tuple[Path, list[str]] | None:
    """The folder that an address is, or that its pattern begins with, and the files in it; None for one file.

    Raises:
        ValueError: no driver reads such addresses, or the way there failed.
    """
    from fsspec.core import url_to_fs

    pattern = re.search(r"[*\[]", url)
    try:
        system, path = url_to_fs(url)
        if not pattern and not system.isdir(path):
            return None
        found = sorted(system.glob(path)) if pattern else sorted(system.find(path))
    except Exception as error:  # each driver has errors of its own; of one file, the copying says it better
        if not pattern:
            return None
        raise ValueError(f"data.source: {url} could not be listed: {error}") from error
    parts = Path(path).parts
    depth = next((i for i, part in enumerate(parts) if re.search(r"[*\[]", part)), len(parts))
    base = Path(*parts[:depth])
    return base, [str(Path(name).relative_to(base)) for name in found]


def fetched(url: str) -> Path:
    """The copy of a remote file in the cache folder; made anew when the remote one has changed.

    Raises:
        FileNotFoundError, ValueError: it is not there, it is a folder, no driver reads such addresses, or plain http.
    """
    if re.search(r"(^|::)http://", url.lower()):
        raise ValueError(f"data.source: {url} can be changed on its way to you: use https://.")
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
        about = system.info(path)
        if about["type"] == "directory":
            raise ValueError("it is a folder: give one file")
        state = {name: about[name] for name in _STATE if name in about}
        target = cache_folder() / "remote" / fingerprint(url, system.ukey(path), state) / Path(urlsplit(url).path).name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as draft:
                copy = Path(draft, target.name)
                system.get_file(path, str(copy))
                if about.get("size") not in (None, copy.stat().st_size):
                    raise ValueError(f"only {copy.stat().st_size:,} of {about['size']:,} bytes came")
                copy.replace(target)
    except FileNotFoundError as error:
        why = error.__cause__ or "not found"  # also where there is no way to it
        raise FileNotFoundError(f"data.source: there is no file {url} ({why}): check the address.") from error
    except ImportError as error:
        raise ValueError(f"data.source: {url} needs a driver that is not installed: {error}.") from error
    except Exception as error:  # each driver has errors of its own
        raise ValueError(
            f"data.source: {url} could not be read: {str(error).rstrip('.') or type(error).__name__}."
        ) from error
    return target
