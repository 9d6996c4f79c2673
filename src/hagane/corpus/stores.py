"""Files in stores: `s3://bucket/prefix`, `gs://`, `hf://datasets/...`, `https://`, and whatever other URL fsspec has a filesystem for.

A listing gives each file's size and a tag (its etag, or the time it was changed), so that a store's files have an identity
like local ones. Keys, endpoints and regions are those of the store's own environment variables and configuration files.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from hagane.errors import DataError

BLOCK_BYTES = 1 << 22  # asked of a store at a time: a request costs about as much as a megabyte
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}
# The first that a store gives: content digests before times. Stores write them differently, fsspec passes them on as they are.
_TAGS = ("ETag", "etag", "blob_id", "Content-MD5", "md5Hash", "LastModified", "Last-Modified", "last_modified", "mtime", "updated", "modified", "created")


@dataclass(frozen=True)
class Stored:
    """One file of a store: its URL, its path below what was asked for, bytes (0 where the store does not say), identity."""

    url: str
    name: str
    num_bytes: int
    identity: str


def is_url(path: str) -> bool:
    """Whether a source path is for fsspec: it has a scheme, as in `s3://`."""
    return "://" in path


def local_path(url: str) -> str:
    """The part of a URL that has folders and suffixes: without host or bucket, query and fragment."""
    parts = urlsplit(url)
    return parts.path.lstrip("/") if parts.scheme in ("http", "https") else url.split("://", 1)[1]


def is_pattern(url: str) -> bool:
    """Whether the URL is a glob. In a web address `?` begins a query, and brackets stand for themselves."""
    return "*" in url if url.startswith(("http://", "https://")) else any(mark in url for mark in "*?[")


def list_files(source: str, url: str) -> list[Stored]:
    """The files that a URL means, in order: itself, all below it, or those that a glob matches.

    Raises DataError where the package for the store is missing, the store refuses, or nothing is there.
    """
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        filesystem.invalidate_cache()
        infos = _infos(filesystem, root, url)
        if not infos:
            raise FileNotFoundError
        start = _fixed_part(root) if is_pattern(url) else root.rstrip("/")
        return sorted((_stored(filesystem, path, info, start) for path, info in infos.items()), key=lambda stored: stored.url)
    except FileNotFoundError:
        problem = "nothing matches" if is_pattern(url) else "there is no file or folder"
        raise DataError(f"corpus source {source}: {problem} {url}. Was it moved or deleted since the recipe was written?") from None
    except ImportError as error:
        scheme = url.split("://", 1)[0]
        package = _PACKAGES.get(scheme) or getattr(error, "name", None) or str(error)
        remedy = "Install it with the extra `stores`: pip install 'hagane[stores]'." if scheme in _PACKAGES else "Install it."
        raise DataError(f"corpus source {source}: {url} cannot be read without the package {package}. {remedy}") from None
    except Exception as error:  # every store has exceptions of its own, and none of them is a bug of ours
        raise DataError(f"corpus source {source}: {url} cannot be listed ({_reason(error)}). Correct the address, or give access to it.") from None


def _infos(filesystem: Any, root: str, url: str) -> dict[str, dict[str, Any]]:
    if is_pattern(url):
        found = filesystem.glob(root, detail=True)
    elif not url.endswith("/") and filesystem.isfile(root):  # on the web a folder is a page, too: its last character tells
        found = {root: filesystem.info(root)}
    else:
        found = filesystem.find(root, detail=True)
    return {path: info for path, info in found.items() if info.get("type") == "file"}


def _stored(filesystem: Any, path: str, info: dict[str, Any], start: str) -> Stored:
    if info.get("size") is None:  # a listing on the web has names only
        info = filesystem.info(path)
    name = path[len(start) :].strip("/") if path.startswith(start) else path
    return Stored(filesystem.unstrip_protocol(path), name or path.rsplit("/", 1)[-1], int(info.get("size") or 0), _identity(info))


def _fixed_part(pattern: str) -> str:
    """The folder above the first wildcard."""
    first = min(pattern.find(mark) for mark in "*?[" if mark in pattern)
    return pattern[:first].rpartition("/")[0]


def identity_of(url: str) -> str:
    """Size and tag of a file as they are now. Raises OSError."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        filesystem.invalidate_cache()
        return _identity(filesystem.info(path))
    except Exception as error:
        raise OSError(_reason(error)) from None


def _identity(info: dict[str, Any]) -> str:
    tag = next(((name, info[name]) for name in _TAGS if info.get(name)), None)
    if tag is None:
        return str(info.get("size"))
    value = tag[1].timestamp() if isinstance(tag[1], datetime) else tag[1]
    return f"{info.get('size')}:{tag[0]}={value}"


def changed(before: str, after: str) -> bool:
    """Whether two identities are of different content. A tag counts only where both have the same kind: listings may say less than a file's own entry."""
    size, _, tag = before.partition(":")
    other_size, _, other_tag = after.partition(":")
    return size != other_size or (tag.partition("=")[0] == other_tag.partition("=")[0] and tag != other_tag)


def open_url(url: str) -> BinaryIO:
    """Open for reading. Raises OSError (FileNotFoundError, PermissionError), whatever the store itself raises."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        return io.BufferedReader(_StoreFile(filesystem.open(path, "rb", block_size=BLOCK_BYTES)), BLOCK_BYTES // 4)
    except OSError:
        raise
    except Exception as error:
        raise OSError(_reason(error)) from None


class _StoreFile(io.RawIOBase):
    """A file of a store as Python's own: everything that goes wrong is an OSError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except OSError:
            raise
        except Exception as error:
            raise OSError(_reason(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
