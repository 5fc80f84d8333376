"""The strength: slider, dose and coefficient follow one another."""

import pytest
from textual.widgets import Input

from steerlab.tui.workbench.strength import Slider, Strength
from tests.tui.hosts import Host


@pytest.fixture
def host() -> Host:
    return Host(Strength(0.2, 1.0), ".line { height: 1 } .label { width: 8 }")


def shown(host: Host) -> tuple[str, str]:
    return tuple(host.widget.query_one(f"#{n}", Input).value for n in ("dose", "coefficient"))


async def test_the_dose_stays_when_the_vector_changes(host):
    async with host.run_test(size=(80, 3)):
        for per_unit in (0.5, 0.1):
            host.widget.follow(per_unit)
            dose, coefficient = host.widget.chosen
            assert dose == 0.2
            assert coefficient == pytest.approx(0.2 / per_unit)
        assert shown(host) == ("+0.2", "+2")


async def test_a_vector_without_a_dose_has_its_coefficient_alone(host):
    async with host.run_test(size=(80, 3)) as pilot:
        host.widget.follow(None)
        assert host.widget.chosen == (None, 1.0)
        assert shown(host) == ("", "+1")
        host.widget.query_one(Slider).focus()
        await pilot.press("0", *["right"] * 25)
        assert host.widget.chosen == (None, 2.0)
        host.widget.follow(0.5)  # the dose that was wanted before comes back
        assert host.widget.chosen == (0.2, 0.4)


async def test_keys_move_the_slider(host):
    async with host.run_test(size=(80, 3)) as pilot:
        host.widget.follow(0.5)
        host.widget.query_one(Slider).focus()
        await pilot.press("right")
        assert host.widget.chosen[0] == pytest.approx(0.21)
        await pilot.press("minus", "pagedown")
        assert host.widget.chosen[0] == pytest.approx(-0.26)
        await pilot.press("0")
        assert host.widget.chosen == (0, 0)
        await pilot.press(*["pageup"] * 30)
        assert host.widget.chosen[0] == 0.5


async def test_the_mouse_moves_the_slider(host):
    async with host.run_test(size=(80, 3)) as pilot:
        host.widget.follow(0.5)
        slider = host.widget.query_one(Slider)
        await pilot.click(slider, offset=(slider.size.width - 2, 0))
        assert host.widget.chosen[0] == 0.5
        await pilot.click(slider, offset=(1, 0))
        assert host.widget.chosen[0] == -0.5


async def test_a_typed_coefficient_moves_the_dose_and_back(host):
    async with host.run_test(size=(80, 3)) as pilot:
        host.widget.follow(0.5)
        host.widget.query_one("#coefficient", Input).focus()
        await pilot.press(*"-1.5")
        assert host.widget.chosen == (-0.75, -1.5)  # beyond the slider: it can be typed
        host.widget.query_one("#dose", Input).focus()
        await pilot.press(*"0.3")
        assert host.widget.chosen == (0.3, 0.6)


@pytest.mark.parametrize("text", ["-", "..", "e", ""])
async def test_half_a_number_changes_nothing(host, text):
    async with host.run_test(size=(80, 3)) as pilot:
        host.widget.follow(0.5)
        box = host.widget.query_one("#dose", Input)
        box.focus()
        await pilot.press("delete", *text)
        assert box.has_class("-invalid")
        assert host.widget.chosen == (0.2, 0.4)
        host.widget.query_one(Slider).focus()
        await pilot.pause()
        assert shown(host) == ("+0.2", "+0.4")


@pytest.mark.parametrize("width", [20, 40, 80, 200])
async def test_the_bar_is_as_wide_as_its_place(host, width):
    async with host.run_test(size=(width, 3)):
        slider = host.widget.query_one(Slider)
        for value in (-3.0, -1.0, -0.01, 0.0, 0.4, 1.0, 2.0):
            slider.value = value
            assert slider.render().cell_len == max(5, slider.size.width)


async def test_the_safe_band_is_drawn_around_the_middle(host):
    async with host.run_test(size=(80, 3)) as pilot:
        slider = host.widget.query_one(Slider)
        assert "═" not in slider.render().plain
        host.widget.safe = (-0.25, 0.25)
        host.widget.follow(0.5)
        await pilot.pause()
        line = slider.render().plain
        middle = line.index("┼") if "┼" in line else len(line) // 2
        band = [i for i, c in enumerate(line) if c in "═━●┼"]
        assert band == list(range(band[0], band[-1] + 1))
        assert abs((band[0] + band[-1]) / 2 - middle) <= 1
        assert len(band) == pytest.approx(len(line) / 2, abs=3)
        host.widget.safe = None
        host.widget.follow(0.5)
        assert "═" not in slider.render().plain


async def test_there_is_no_band_for_coefficients_without_doses(host):
    async with host.run_test(size=(80, 3)):
        host.widget.safe = (-0.25, 0.25)
        host.widget.follow(None)
        assert "═" not in host.widget.query_one(Slider).render().plain
