"""llama.cpp's own server, of xllamacpp (in the conformance extra), on smollm2 in float32."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steerlab import LanguageModel
from steerlab.conformance import gguf_model
from steerlab.models.embedded import checkpoint
from steerlab.vllm_plugin import launch


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Its address; one thread, as the others have, and 16 texts at once."""
    address = f"http://127.0.0.1:{launch.free_port()}"
    words = [sys.executable, "-m", __name__, str(directory / "model.gguf"), address]
    with launch.running(words, os.environ, address, directory / "llama-server"):
        yield address


def _write(path: Path) -> None:
    import gguf

    def add_tokenizer(file: Any, _: str) -> None:
        saved = json.loads((checkpoint() / "tokenizer.json").read_text())
        vocabulary, special = saved["model"]["vocab"], {t["id"] for t in saved["added_tokens"]}
        file.add_string("tokenizer.ggml.model", "gpt2")
        file.add_tokenizer_pre("smollm")
        file.add_token_list(sorted(vocabulary, key=vocabulary.get))
        file.add_token_types([3 if n in special else 1 for n in range(len(vocabulary))])
        file.add_token_merges([" ".join(pair) for pair in saved["model"]["merges"]])
        file.add_bos_token_id(1)
        file.add_eos_token_id(2)
        file.add_add_bos_token(False)

    gguf.GGUFWriter.add_tokenizer_model = add_tokenizer
    gguf_model.write(LanguageModel.load("smollm2", dtype="float32", layout="plain").model, path)


def _serve(path: str, port: int) -> None:
    import xllamacpp

    how = xllamacpp.CommonParams()
    how.model.path, how.hostnames, how.port = path, ["127.0.0.1"], port
    how.n_parallel, how.n_ctx = 16, 16 * 512
    how.cpuparams.n_threads = how.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(how)
    while server.listening_address:
        time.sleep(1)


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
    _serve(sys.argv[1], int(sys.argv[2].rpartition(":")[2]))
