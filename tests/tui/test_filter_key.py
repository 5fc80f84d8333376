"""A key in the filter costs little: the details wait until the cursor rests."""

from steerlab.tui.detail import detail
from steerlab.tui.detail.overview import Overview
from steerlab.tui.workbench import browser
from tests.benchmarks.filter_key import count_keys
from tests.tui.driver import PAIRS, Session
from tests.tui.visit import starter_store


async def test_a_burst_of_keys_reads_the_details_once(lab, monkeypatch):
    monkeypatch.setattr(detail, "REST", 1.0)
    reads: list[str] = []
    read = Overview.read

    def counted(pane, summary, worker):
        reads.append(summary.name)
        return read(pane, summary, worker)

    for name in ("la", "lab", "labs"):
        lab.extract(name, PAIRS, layers=2)
    async with Session(lab, count=5) as user:
        await user.until(lambda: "2 contrast pairs" in user.screenshot)
        monkeypatch.setattr(Overview, "read", counted)
        await user.pilot.press("slash")
        for typed, at in (("l", "la"), ("o", "love"), ("\b", "la"), ("abs", "labs")):
            await user.pilot.press(*("backspace" if key == "\b" else key for key in typed))
            await user.until(lambda at=at: user.at == at)
        await user.until(lambda: "labs" in reads)
        await user.until(lambda: "labs" in str(user.bench.detail.border_title))
        assert [name for name in reads if name != "anger"] == ["labs"]


async def test_a_key_makes_few_calls_between_files(tmp_path, monkeypatch):
    monkeypatch.setattr(detail, "REST", 0.2)
    monkeypatch.setattr(browser, "FOLLOW", 1.0)
    counted = await count_keys(starter_store(tmp_path / "store"))
    assert counted["a"].ours <= 113 // 2  # 22 today; 113 when every row was written anew
    assert counted["l"].all <= 36_000  # 25,600 today; 51,000 when the screen was laid out anew
