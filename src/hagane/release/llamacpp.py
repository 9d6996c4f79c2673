"""llama.cpp (through xllamacpp) as a judge: a GGUF file loaded in a process of its own, asked for tokens, templates, log-probabilities, text.

A process of its own, because llama.cpp answers a file that it cannot hold by ending the process it is in. It listens on the loopback
device only, at a port the kernel chooses, and ends when its standard input does: with us, also where we are killed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hagane.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIMEOUT = 900.0  # seconds for one answer: a first prompt of a large model on a small machine
_NOT_WORDS = re.compile(r"\x1b\[[0-9;]*m|^[\d.]+ [A-Z] ")  # colours, and the time and level before a line


class LlamaCpp:
    """A running llama.cpp. Use as a context manager. Raises RunError where it cannot load the file."""

    def __init__(self, model: Path, context: int, threads: int, whole_character: int) -> None:
        """`whole_character`: a token that is a character by itself, as "A" is."""
        self.model, self._context, self._threads, self._whole_character = model, context, threads, whole_character

    def __enter__(self) -> LlamaCpp:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        arguments = [sys.executable, "-m", __name__, str(self.model), str(self._context), str(self._threads)]
        # a session of its own: what a terminal interrupts is us, and we end it
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True)
        assert self._process.stdout is not None
        address = self._process.stdout.readline().decode().strip()
        if not address:
            self.__exit__()
            raise RunError(f"the release was stopped: llama.cpp cannot load {self.model.name} ({self._said}).")
        place = urlsplit(address)
        self._host, self._port = place.hostname or "127.0.0.1", place.port
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said = _last_error(self._log)
        self._log.close()

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text, special tokens recognised."""
        ids: list[int] = self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        return ids

    def render(self, messages: Sequence[Mapping[str, str]], thinking: bool) -> str:
        """A conversation as the chat template of the file gives it."""
        body = {"messages": list(messages), "chat_template_kwargs": {"enable_thinking": thinking}}
        return str(self._post("/apply-template", body)["prompt"])

    def logprobs(self, ids: Sequence[int], vocabulary_size: int) -> NDArray[np.float64]:
        """Natural log-probabilities (V,) of every token as the next one after `ids`."""
        import numpy as np

        # what is asked for is the distribution before sampling. A sampled byte within a character is held back together with its
        # distribution, so a byte that is a character by itself is sampled instead
        body = {"prompt": list(ids), "n_predict": 1, "n_probs": vocabulary_size, "logit_bias": [[self._whole_character, 1e6]], **_GREEDY}
        answer = self._post("/completion", body)
        if not answer.get("completion_probabilities"):
            raise RunError(f"the release was stopped: llama.cpp gave no log-probabilities for {self.model.name}.")
        found = np.full(vocabulary_size, np.nan)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        return found

    def greedy(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """Ids that it goes on with, the most likely one each time; the one that ends the text or turn is not among them."""
        answer = self._post("/completion", {"prompt": list(ids), "n_predict": max_new_tokens, **_GREEDY})
        return [int(token) for token in answer["tokens"]]

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        # one connection a request: it closes those on which nothing is asked for seconds, as long as our own model may take
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RunError(f"the release was stopped: llama.cpp failed on {self.model.name} ({type(error).__name__}: {error}).") from error
        finally:
            connection.close()
        if response.status != 200 or not isinstance(answer, dict):
            raise RunError(f"the release was stopped: llama.cpp refused a request on {self.model.name}: {json.dumps(answer)[:300]}.")
        return answer


# every prompt is read anew: with sliding windows, what llama.cpp keeps of one that was longer gave the next other text (xllamacpp 2026.10)
_GREEDY = {"temperature": 0.0, "cache_prompt": False, "return_tokens": True}


def _last_error(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [_NOT_WORDS.sub("", line).strip() for line in log.read().decode("utf-8", "replace").splitlines()]
    errors = [line for line in lines if "error" in line.lower() or "assert" in line.lower()]
    return (errors or lines or ["it said nothing"])[0].rstrip(".")


def _serve(model: str, context: str, threads: str) -> None:
    """In the process of its own: load, say where, and wait for the end of standard input."""
    out = os.dup(1)
    os.dup2(2, 1)  # llama.cpp's own words go to the log
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.n_ctx, settings.n_parallel, settings.cache_ram_mib = int(context), 1, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(threads)
    settings.n_gpu_layers, settings.fit_params, settings.warmup, settings.ui = 0, False, False, False
    settings.use_jinja, settings.verbosity = True, 1  # errors only
    try:
        server = xllamacpp.Server(settings)
    except RuntimeError:
        time.sleep(0.5)  # its log, which says why, is written by a thread of its own
        raise
    os.write(out, f"{server.listening_address}\n".encode())
    os.close(out)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
