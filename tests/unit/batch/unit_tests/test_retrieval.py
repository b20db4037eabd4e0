"""A repository's own tests show how code is tested there."""

from __future__ import annotations

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.unit_tests.mining.mine import mine_functions

CODE = """
def parse_price(text):
    return int(text[1:]) * 100 + len(text)

def parse_weight(text):
    return float(text[:-2]) * 1000 - len(text)

def shuffle_nothing(values):
    return [values[at] + 1 for at in range(len(values))]

class Basket:
    def __init__(self, items):
        self.items = items

    def total(self, rate):
        return sum(item * rate for item in self.items) + 1
"""
TESTS = (
    """
import prices

def test_price():
    assert prices.parse_price("$3") == 302

def test_parse_many():
    for text in ("$1", "$2"):
        assert prices.parse_price(text) > 100, text

def test_nothing():
    prices.parse_weight("3kg")

class TestBasket:
    def test_total(self):
        assert prices.Basket([1]).total(2) == 3

def test_other_total():
    assert prices.Cart([1]).total(2) == 3

def test_long():
    assert prices.parse_price("$4") == 402
"""
    + "    assert True\n" * 40
)


def similar(repository_of_tests: str = "shop") -> dict[str, tuple[str, ...]]:
    documents = [
        SourceDocument("prices.py", CODE, "shop", ""),
        SourceDocument("tests/test_prices.py", TESTS, repository_of_tests, ""),
    ]
    return {each.qualified_name: each.similar_tests for each in mine_functions(documents).functions}


def test_tests_that_call_a_function_come_first_the_shortest_of_them_ahead() -> None:
    first, second = similar()["parse_price"]
    assert first == 'def test_price():\n    assert prices.parse_price("$3") == 302\n'
    assert second.startswith("def test_parse_many")


def test_a_method_needs_a_test_that_names_its_class() -> None:
    assert similar()["Basket.total"] == ("def test_total(self):\n    assert prices.Basket([1]).total(2) == 3\n",)


def test_without_a_caller_tests_of_like_names_help() -> None:
    """The one that calls it asserts nothing."""
    assert similar()["parse_weight"][0].startswith("def test_parse_many")


def test_what_nothing_resembles_gets_no_example() -> None:
    assert similar()["shuffle_nothing"] == ()


def test_examples_come_from_the_same_repository() -> None:
    assert set(similar("another shop").values()) == {()}
