import random

import pytest

from rec.space import active, draw, parse, prefixed


class Random:
    """Draws at random and remembers what was asked."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.asked: list[str] = []

    def suggest_float(self, name, low, high, *, log=False):
        self.asked.append(name)
        return self.rng.uniform(low, high)

    def suggest_int(self, name, low, high):
        self.asked.append(name)
        return self.rng.randint(low, high)

    def suggest_categorical(self, name, choices):
        self.asked.append(name)
        return self.rng.choice(list(choices))


SPACE = {
    "b": {"log": [0.1, 1.0], "when": {"a": ["x"]}},
    "c": {"int": [1, 3], "when": {"b": {"not": []}}},
    "a": {"choice": ["x", "y"]},
    "d": {"uniform": [0, 1], "when": {"outside": {"not": [0]}}},
}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("outside", [0, 5])
def test_a_key_is_drawn_exactly_where_its_condition_holds(seed: int, outside: int) -> None:
    suggest = Random(seed)
    point = draw(parse(SPACE), suggest, {"outside": outside}.__getitem__)
    assert ("b" in point) == (point["a"] == "x")
    assert ("c" in point) == ("b" in point)  # a key that does not count itself allows nothing
    assert ("d" in point) == (outside != 0)
    assert suggest.asked == list(point)


def test_keys_come_after_those_their_conditions_ask_for() -> None:
    assert list(parse(SPACE)) == ["a", "d", "b", "c"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"log": [0, 1]}, "x.log: expected numbers above 0"),
        ({"log": [1e-2, 1e-4]}, "x.log: expected two numbers, the lower first"),
        ({"int": [1, 2.5]}, "x.int: expected two whole numbers"),
        ({"uniform": [0, float("nan")]}, "x.uniform: expected two numbers"),
        ({"uniform": [1]}, "x.uniform: expected two numbers"),
        ({"choice": []}, "x.choice: expected a list of values"),
        ({"choise": [1]}, "x: expected exactly one of log, uniform, int, choice"),
        ({"log": [1, 2], "int": [1, 2]}, "got log, int"),
        ({"choice": [1], "when": {"y": 3}}, "x.when: expected a list of values or"),
        (3, "x: expected a table"),
    ],
)
def test_a_malformed_entry_is_named(entry, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse({"x": entry})
    assert message in str(error.value)


def test_conditions_in_a_ring_are_refused() -> None:
    with pytest.raises(ValueError, match="a, b: each is conditional"):
        parse({"a": {"choice": [1], "when": {"b": [1]}}, "b": {"choice": [1], "when": {"a": [1]}}})


def test_a_prefix_moves_conditions_too() -> None:
    moved = prefixed({"b": {"int": [1, 2], "when": {"a": [1]}}}, "model.")
    assert moved == {"model.b": {"int": [1, 2], "when": {"model.a": [1]}}}
    assert active(parse(moved)["model.b"], {}, {}, {"model.a": 1}.__getitem__)
