"""Without a strength a vector is used as calibrated; beyond the safe range it is told."""

import asyncio
import shutil

from steerlab import Injection, Store
from steerlab.core.results import Calibration
from tests.serving.conftest import Served


async def test_the_calibrated_point_is_used_and_a_dose_beyond_it_is_warned_of(
    served: Served, tmp_path
) -> None:
    shutil.copytree(served.lab.store.path, tmp_path / "store")
    store = served.lab._store = Store(tmp_path / "store")
    love = store.load("love")
    at = love[1]
    store.results.save_calibration(
        Calibration(love.digest, True, 1, at.dose(2.5), 2.5, (-0.1, at.dose(3.0) or 1.0))
    )
    wanted = served.alone("I am", [Injection(at, 2.5)], max_new_tokens=9)
    for body in ({"steering": "love"}, {"model": "tiny:love"}):
        answer = await served.post(
            "completions", prompt="I am", max_tokens=9, temperature=0, **body
        )
        assert answer["choices"][0]["text"] == wanted
        assert answer["steering"][0]["layers"] == [1]
        assert answer["steering"][0]["coefficient"] == 2.5
        assert "steering_warnings" not in answer
    with served.lm.lock:  # a pass of the model that takes long
        asked = asyncio.create_task(
            served.post("completions", prompt="I am", max_tokens=2, steering="love")
        )
        async with asyncio.timeout(10):
            while not served.engine.queued:  # it is prepared meanwhile
                await asyncio.sleep(0.001)
    await asked
    far = {"vector": "love", "layers": 1, "coefficient": 9}
    answer = await served.post("completions", prompt="I am", max_tokens=9, steering=far)
    (warning,) = answer["steering_warnings"]
    assert "outside the safe range" in warning
    chunks = await served.stream("completions", prompt="I am", max_tokens=9, steering=far)
    assert chunks[0]["steering_warnings"] == [warning]
