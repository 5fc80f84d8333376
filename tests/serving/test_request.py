import pytest

from steerlab.errors import BadExpression, BadOption, SteerlabError
from steerlab.serving.request import MOST, Steer, parse_steering


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (None, []),
        ("", []),
        ("love", [Steer("love")]),
        ("love - anger dose=0.2", [Steer("love - anger", dose=0.2)]),
        ("love -anger --dose 0.2 --layers 10,15", [Steer("love -anger", 0.2, layers=[10, 15])]),
        ("love --dose=-0.2 layers=all", [Steer("love", -0.2, layers="all")]),
        ("love coefficient=2 positions=generated", [Steer("love", None, 2, None, "generated")]),
        ("love dose=0.1; calm", [Steer("love", 0.1), Steer("calm")]),
        ({"vector": "love", "dose": "0.2"}, [Steer("love", 0.2)]),
        ({"vector": "love", "layers": 15, "dose": None}, [Steer("love", layers=[15])]),
        ({"vector": "love", "layers": [3, 4], "operation": "add"}, [Steer("love", layers=[3, 4])]),
        ([{"vector": "love"}, "calm dose=1"], [Steer("love"), Steer("calm", 1.0)]),
    ],
)
def test_a_steering_is_a_text_an_object_or_a_list(field, wanted) -> None:
    assert list(parse_steering(field)) == wanted


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (3, "steering is a text"),
        ("dose=1", "needs a vector"),
        ({"dose": 1}, "needs a vector"),
        ({"vector": "love", "strength": 1}, "no 'strength'"),
        ({"vector": "love", "dose": float("inf")}, "finite number"),
        ({"vector": "love", "dose": True}, "finite number"),
        ({"vector": "love", "dose": 10**400}, "finite number"),
        ({"vector": "love", "positions": "last"}, "positions are"),
        ({"vector": "love", "positions": ["all"]}, "positions is a text"),
        ({"vector": "love", "layers": {}}, "layers are"),
        ({"vector": "love", "operation": "ablate"}, "operation"),
        ("love dose=1 dose=2", "more than once"),
        ("love dose=1 - anger", "the expression goes first"),
        ("love dose=1 coefficient=2", "not both"),
        ("love" * 600, "at most"),
        (["love"] * (MOST + 1), "at most 16 vectors"),
        ("love;" * (MOST + 1), "at most 16 vectors"),
    ],
)
def test_what_is_wrong_is_said(field, message) -> None:
    with pytest.raises(BadOption, match=message):
        parse_steering(field)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "open('/etc/passwd')", "../love", "love.a.b.c", "a if b else c"],
)
def test_nothing_can_name_a_path_or_an_import(text: str) -> None:
    with pytest.raises(SteerlabError) as caught:
        parse_steering({"vector": text})
    assert isinstance(caught.value, BadExpression)
