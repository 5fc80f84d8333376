"""The lab on an engine: a server that tells what it was asked, and writes words of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading

import pytest
from aiohttp import web

from steerlab import Lab, Store
from steerlab.cli import run
from steerlab.core.display import signed
from steerlab.core.results import Calibration
from steerlab.core.sampling import Sampling
from steerlab.core.setting import BASELINE, Setting
from steerlab.core.sweep import SweepPlan
from steerlab.errors import BadOption, Incompatible, ModelError
from steerlab.lab.engine import EngineRuntime
from steerlab.lab.sweeps import run_sweep
from tests.tiny import tiny_lm


class Double:
    """Answers as `steerlab serve` and vLLM do. bodies: what came. url: where it is."""

    def __init__(self):
        self.bodies, self.cut_off = [], 0
        self.listed = {"data": [{"id": "tiny"}, {"id": "tiny:love"}]}
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        assert started.wait(60)

    def _run(self, started):
        async def start():
            app = web.Application()
            app.router.add_get("/v1/models", self.models)
            app.router.add_post("/v1/completions", self.write)
            app.router.add_post("/v1/chat/completions", self.write)
            self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
            await self.runner.setup()
            await web.TCPSite(self.runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
            started.set()

        self.loop.run_until_complete(start())
        self.loop.run_forever()

    def close(self):
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)
        self.loop.close()

    async def models(self, request):
        return web.json_response(self.listed)

    async def write(self, request):
        body = await request.json()
        self.bodies.append(body)
        chat = "messages" in body
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        if prompt == "bad":
            return web.json_response({"error": {"message": "no vector called lvoe"}}, status=400)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        if prompt == "odd":
            await answer.write(b"data: <html>\n\n")
            return answer
        words = [f"<{prompt}", f" {(body.get('steering') or {}).get('coefficient')}", ">"]
        try:
            for number, word in enumerate(words * (1000 if prompt == "long" else 1)):
                last = number == 2 and prompt != "long"
                content = {"delta": {"content": word}} if chat else {"text": word}
                choice = {"index": 0, "finish_reason": "stop" if last else None, **content}
                await self._send(answer, {"choices": [choice]})
            await self._send(answer, {"choices": [], "usage": {"completion_tokens": 7}})
            await answer.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.cut_off += 1
            raise
        return answer

    async def _send(self, answer, event):
        await answer.write(f"data: {json.dumps(event)}\n\n".encode())
        await asyncio.sleep(0)


@pytest.fixture
def double():
    made = Double()
    yield made
    made.close()


@pytest.fixture(scope="module")
def vector():
    return tiny_lm().extract((["good", "nice"], ["bad", "dull"]), layers=[1, 2])


@pytest.fixture
def lab(double, vector, tmp_path):
    store = Store(tmp_path / "store")
    store.save("love", vector)
    return Lab(store, engine=double.url)


def test_texts_are_those_of_the_engine_with_each_rows_setting(lab, double):
    love = lab.evaluate("love")
    settings = [BASELINE, Setting(love[1], 2.0), Setting(love[2], -1.0)]
    pieces = {}

    def hear(place, piece):
        pieces[place] = pieces.get(place, "") + piece

    how = {"positions": "generated", "max_new_tokens": 5, "temperature": 0.5}
    cells = lab.compare(["a", "b"], settings, seeds=(3,), on_text=hear, **how)
    assert [cell.text for cell in cells] == [
        f"<{prompt} {c}>" for prompt in "ab" for c in (None, 2.0, -1.0)
    ]
    assert pieces == dict(enumerate(cell.text for cell in cells))
    assert {(cell.tokens, cell.finish) for cell in cells} == {(7, "stop")}
    steered = next(b for b in double.bodies if (b.get("steering") or {}).get("coefficient") == 2.0)
    assert steered["steering"] == {
        "vector": str(love[1]),
        "coefficient": 2.0,
        "layers": [1],
        "positions": "generated",
        "digest": love[1].digest,
    }
    assert (steered["model"], steered["seed"], steered["temperature"]) == ("tiny", 3, 0.5)


def test_a_chat_goes_to_the_chat_path(lab, double):
    (cell,) = lab.compare(["hi"], [BASELINE], chat=True)
    assert cell.text == "<hi None>"
    assert double.bodies[0]["messages"] == [{"role": "user", "content": "hi"}]


def test_a_sweep_is_kept_apart_from_one_of_the_lab_and_goes_on(lab, double):
    plan = SweepPlan("love", prompts=("a",), coefficients=(0.0, 1.0))
    sweep = run_sweep(lab, plan)
    assert [cell.text for cell in sweep.cells] == ["<a None>", "<a 1.0>", "<a 1.0>"]
    asked = len(double.bodies)
    assert run_sweep(lab, plan).cells == sweep.cells
    assert len(double.bodies) == asked
    here = Lab(lab.store, tiny_lm())
    assert all("<a" not in cell.text for cell in run_sweep(here, plan).cells)


def test_a_stopped_text_ends_at_the_engine_too(lab, double):
    asked = iter([False] * 4 + [True] * 1000)
    (cell,) = lab.compare(["long"], [BASELINE], should_stop=lambda: next(asked))
    assert cell.finish == "cancelled"
    assert cell.text.startswith("<long")
    assert len(cell.text) < 100


def test_a_refusal_is_one_line_with_the_engines_reason(lab):
    with pytest.raises(ModelError, match="no vector called lvoe"):
        lab.compare(["a", "bad"], [BASELINE])


@pytest.mark.parametrize("listed", [{"data": []}, {"models": ["a"]}, ["a"], {"data": 3}])
def test_another_server_is_told_from_an_engine(lab, double, listed):
    double.listed = listed
    with pytest.raises(ModelError, match="does not answer as OpenAI's API does"):
        lab.compare("Hi", [BASELINE], max_new_tokens=3)


def test_pieces_that_are_none_are_refused(lab, double):
    with pytest.raises(ModelError, match="does not answer as OpenAI's API does"):
        lab.compare("odd", [BASELINE], max_new_tokens=3)


def test_no_engine_is_told_with_what_to_start():
    with pytest.raises(ModelError, match=r"no engine answers at http://127\.0\.0\.1:1/v1"):
        EngineRuntime("http://127.0.0.1:1").generate([(BASELINE, "a", 0)], Sampling())


def test_what_an_engine_can_not_do_is_refused(lab, vector):
    runtime = EngineRuntime("http://nowhere/v1/")
    assert runtime.url == "http://nowhere/v1"
    row = [(BASELINE, "a", 0)]
    for how, error in (
        ({"audit": True}, BadOption),
        ({"allow_other_weights": True}, BadOption),
        ({"bos": True}, Incompatible),
    ):
        with pytest.raises(error):
            runtime.generate(row, Sampling(), **how)
    with pytest.raises(ModelError, match="no logits"):
        runtime.logits([])
    with pytest.raises(Incompatible, match="has no layer 3"):
        lab.at_layers(lab.evaluate("love"), [3])


@pytest.mark.parametrize(
    ("asked", "coefficient"), [([], 0.5), (["-d", "0.4"], 1.0), (["-c", "-1"], -1.0)]
)
def test_an_engine_makes_the_calibrated_layer(lab, double, vector, asked, coefficient, capsys):
    made = Calibration(vector.digest, True, 3, 0.2, 0.5, (-0.1, 0.3), data={})
    lab.store.results.save_calibration(made)
    where = ["--store", str(lab.store.path), "--engine", double.url]
    assert run(["generate", "a", "-v", "love", *asked, *where]) == 0
    assert f"love.v1  c {signed(coefficient)}" in capsys.readouterr().out
    steering = next(b["steering"] for b in double.bodies if b.get("steering"))
    assert steering == {
        "vector": "love.v1",
        "coefficient": pytest.approx(coefficient),
        "layers": [3],
        "positions": "all",
        "digest": None,
    }


def test_the_command_line_writes_without_torch(lab, double):
    program = (
        "import sys; from steerlab.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    words = ["generate", "a", "-v", "love", "-c", "2", "--engine", double.url]
    where = ["--store", str(lab.store.path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words, *where], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "<a 2.0>" in done.stdout
    assert "<a None>" in done.stdout


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", ["--device", "cpu"]),
        ("vllm", ["--plain"]),
        ("http://127.0.0.1:1", ["--dtype", "bfloat16"]),
        ("http://127.0.0.1:1", ["--revision", "main"]),
    ],
)
def test_options_of_loading_that_a_server_would_not_hear_of_are_refused(lab, capsys, engine, words):
    where = ["--store", str(lab.store.path), "--engine", engine]
    assert run(["generate", "a", "-v", "love", *where, *words]) == 2
    assert f"{words[0]} loads a model here" in capsys.readouterr().err
