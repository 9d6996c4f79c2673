"""The standard library of the running interpreter as a corpus: its source code, and its documentation strings as English text.

Real text that is on every machine that can run hagane, under the licence of Python itself (PSF-2.0).
Left out: tests, character tables of `encodings`, build settings (they hold paths of this machine), and files that are not UTF-8.
"""

from __future__ import annotations

import ast
import codecs
import hashlib
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from hagane.corpus.embedded.documents import Record
from hagane.errors import DataError

LICENSE = "PSF-2.0"
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_MIN_CHARACTERS = 200  # shorter ones are empty packages and one-line wrappers


def python_documents(folder: Path | None = None) -> Iterator[Record]:
    """Code files (lang `code-python`), each followed by its documentation strings (lang `en`); help topics and the licence come first.

    The order is fixed by a hash of the file's name, so that any beginning of it is a fair sample. `folder` is the library to
    read (default: the running interpreter's). Raises DataError where it holds no source files.
    """
    library = folder or Path(sysconfig.get_paths()["stdlib"])
    paths = sorted((path for path in library.rglob("*.py") if _wanted(path.relative_to(library))), key=lambda path: _rank(path.relative_to(library)))
    if not paths:
        raise DataError(f"{library} holds no Python source files. Use a Python that ships its standard library as source, or give a corpus with --corpus.")
    yield from _prose(library)
    for path in paths:
        name = path.relative_to(library).as_posix()
        text = _read(path)
        if text is None or len(text) < _MIN_CHARACTERS or "gencodec.py" in text[:500]:
            continue
        yield _record(f"python/lib/{name}", text, "code-python")
        documentation = _documentation(text)
        if len(documentation) >= _MIN_CHARACTERS:
            yield _record(f"python/doc/{name}", documentation, "en")


def _prose(library: Path) -> Iterator[Record]:
    for name in ("LICENSE.txt", "LICENSE"):
        text = _read(library / name)
        if text:
            yield _record(f"python/{name}", text, "en")
    text = _read(library / "this.py")
    if text:  # the Zen of Python is kept in rot13
        strings = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        yield _record("python/this", codecs.decode(max(strings, key=len), "rot13") + "\n", "en")
    text = _read(library / "pydoc_data" / "topics.py")
    if text:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Dict):
                topics = ast.literal_eval(node)
                yield from (_record(f"python/topic/{topic}", body, "en") for topic, body in sorted(topics.items()) if len(body) >= _MIN_CHARACTERS)
                return


def _documentation(text: str) -> str:
    """Documentation strings of a module, its classes and functions, in the order of the file."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # templates that lib2to3 and idlelib keep in .py files
        return ""
    found: list[str] = []
    waiting: list[ast.AST] = [tree]
    while waiting:  # statements only: walking every expression takes three times as long
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            documentation = ast.get_docstring(node, clean=False)
            if documentation and " " in documentation.strip():
                found.append(inspect.cleandoc(documentation))
        inner = [child for name in ("body", "handlers", "orelse", "finalbody") for child in _statements(node, name)]
        waiting.extend(reversed(inner))
    return "\n\n".join(found) + "\n"


def _statements(node: ast.AST, name: str) -> list[ast.AST]:
    value = getattr(node, name, None)
    return value if isinstance(value, list) else []


def _wanted(path: Path) -> bool:
    name = path.name
    return _SKIPPED_FOLDERS.isdisjoint(path.parts) and not path.parts[0].startswith("config-") and not name.startswith("_sysconfigdata") and name != "topics.py"


def _rank(path: Path) -> bytes:
    return hashlib.blake2b(path.as_posix().encode(), digest_size=8).digest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _record(name: str, text: str, language: str) -> Record:
    return {"id": name, "text": text, "lang": language, "source": "python", "license": LICENSE}
