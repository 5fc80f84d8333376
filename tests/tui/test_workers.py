"""Answers of threads that come late: the newest question's answer is the one that stays."""

import threading

from steerlab import Store
from tests.tui.driver import PAIRS, Session


class Late:
    """The first call of a function waits until a later one has answered."""

    def __init__(self, function) -> None:
        self.function, self.calls, self.answered = function, 0, threading.Event()
        self.over = threading.Event()

    def __call__(self, *args, **kwargs):
        self.calls += 1
        first, found = self.calls == 1, self.function(*args, **kwargs)
        if first:
            assert self.answered.wait(10)
            self.over.set()
        return found

    async def answers(self, user) -> None:
        """Let the first answer come, now that the newest is shown."""
        self.answered.set()
        await user.until(self.over.is_set)
        for _ in range(3):
            await user.pilot.pause()


async def test_the_vector_that_was_asked_for_last_is_gone_to(lab, monkeypatch):
    async with Session(lab) as user:
        record = Late(Store.record)
        monkeypatch.setattr(Store, "record", lambda *a, **k: record(*a, **k))
        user.bench.browser.locate("anger")
        await user.until(lambda: record.calls)
        user.bench.browser.locate("love")
        await user.until(lambda: user.at == "love")
        await record.answers(user)
        assert user.at == "love"


async def test_the_newest_list_stays(lab, monkeypatch):
    async with Session(lab) as user:
        listing = lab.store.listing
        matching = Late(listing.matching)
        monkeypatch.setattr(listing, "matching", matching)
        lab.extract("zeal", PAIRS, layers=2)
        user.bench.browser.follow()
        await user.until(lambda: matching.calls)
        lab.extract("calm", PAIRS, layers=1)
        user.bench.browser.follow()
        await user.until(lambda: user.bench.table.row_count == 4)
        await matching.answers(user)
        assert user.bench.table.row_count == 4


async def test_a_row_read_before_a_change_does_not_come_back(lab, monkeypatch):
    async with Session(lab) as user:
        listing = lab.store.listing
        summaries = Late(listing.summaries)
        monkeypatch.setattr(listing, "summaries", summaries)
        user.bench.table.refresh_rows()
        await user.until(lambda: summaries.calls)
        before = user.at
        lab.store.rename(before, "aaa")
        user.bench.browser.follow()
        await user.until(lambda: user.at == "aaa")
        await summaries.answers(user)
        assert user.at == "aaa"


async def test_details_read_before_a_change_do_not_come_back(lab, monkeypatch):
    async with Session(lab) as user:
        await user.until(lambda: user.bench.query("#head"))
        pane = user.bench.query_one("#pane-overview")
        drawn, read = [], Late(pane.read)
        monkeypatch.setattr(pane, "read", read)
        monkeypatch.setattr(pane, "draw", lambda found: drawn.append(found))
        user.bench.detail.reread()
        await user.until(lambda: read.calls)
        user.bench.detail.reread()
        await user.until(lambda: drawn)
        await read.answers(user)
        assert len(drawn) == 1
