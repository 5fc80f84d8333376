"""The footer shows the keys of the focused widget, and is left alone while they are the same."""

from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from steerlab.tui.workbench.prompt import Prompt
from tests.tui.driver import Driver, Session


def keys_of(user: Driver) -> list[FooterKey]:
    return list(user.bench.query_one(Footer).query(FooterKey))


async def test_it_follows_the_focus(lab):
    async with Session(lab) as user:
        seen = set()
        for focus in (user.bench.table, user.bench.query_one(Prompt), user.lab_panel.focus_texts):
            focus() if callable(focus) else focus.focus()
            await user.pilot.pause()
            active = user.bench.active_bindings.values()
            wanted = {bound.binding.action for bound in active if bound.binding.show}
            assert {key.action for key in keys_of(user)} == wanted | {"command_palette"}
            seen.add(frozenset(wanted))
        assert len(seen) > 1


async def test_the_same_keys_stay_where_a_click_meets_them(lab):
    async with Session(lab) as user:
        before = keys_of(user)
        assert before
        user.bench.refresh_bindings()
        await user.pilot.pause()
        assert keys_of(user) == before
