"""`steerlab serve` as a process."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from steerlab.cli import ExitCode, run


def test_its_help_imports_no_torch_and_no_server() -> None:
    code = (
        "import sys; from steerlab.cli import run; code = run(['serve', '--help']);"
        "print(code, [m for m in ('torch', 'transformers', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 []\n")


def test_a_taken_port_is_one_line(served_model, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code = run(["serve", str(served_model), "--port", str(taken.getsockname()[1])])
    assert code == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert "can't serve at 127.0.0.1" in error
    assert "--port" in error
    assert error.count("\n") == 1


def test_vllm_does_not_share_a_port_with_another_server(
    served_model, capsys: pytest.CaptureFixture[str]
) -> None:
    """vLLM sets SO_REUSEPORT: two of them would each get a part of the requests."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code = run(["serve", str(served_model), "--engine", "vllm", "--port", port])
    assert code == ExitCode.BAD_INPUT
    assert f"can't serve at 127.0.0.1 port {port}" in capsys.readouterr().err


def test_a_model_that_is_not_there_ends_it_with_one_line(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["serve", str(tmp_path / "nowhere"), "--port", "0", "--quiet"])
    assert code == ExitCode.MODEL
    assert "there is no model directory" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.campaign
def test_ctrl_c_lets_a_text_be_finished(served_model, tmp_path) -> None:
    words = [sys.executable, "-m", "steerlab", "serve", str(served_model), "--port", "0"]
    process = subprocess.Popen(
        [*words, "--store", str(tmp_path / "store")], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    address = process.stderr.readline().split(" at ")[1].split("/v1")[0]
    body = b'{"model": "tiny", "prompt": "I am", "max_tokens": 100, "temperature": 0, "n": 16}'
    request = urllib.request.Request(f"{address}/v1/completions", body)
    answers = []

    def shows(path: str, pattern: bytes) -> bool:
        for _ in range(600):
            with urllib.request.urlopen(f"{address}/{path}") as page:
                if re.search(pattern, page.read()):
                    return True
            time.sleep(0.1)
        return False

    assert shows("health", b"ready")

    def ask() -> None:
        with urllib.request.urlopen(request) as answer:
            answers.append(answer.read())

    asking = threading.Thread(target=ask)
    asking.start()
    assert shows("metrics", b"written_tokens_total [1-9]")
    process.send_signal(signal.SIGINT)
    asking.join(60)
    assert process.wait(60) == 0
    process.stderr.close()
    assert answers
    assert answers[0].count(b'"finish_reason": "length"') == 16
