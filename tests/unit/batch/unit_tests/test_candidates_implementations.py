"""What a model writes of a function becomes the module with another body."""

from __future__ import annotations

import ast

import pytest

from tests.unit.batch.unit_tests.focal_examples import CLAMP, CLAMP_MODULE, SHAPE_AREA, SHAPE_MODULE, mined
from zenray.batch.unit_tests.candidates.collect import DUPLICATE, MEMORISED, Answer, collect_implementations
from zenray.batch.unit_tests.candidates.implementations import why_not_asked
from zenray.batch.unit_tests.model import MinedFunction
from zenray.batch.unit_tests.prompting.prompts_source import locate

AREA = 'class Shape:\n    def area(self, factor=1):\n        """Width times height times factor."""\n'


def collected(function: MinedFunction, *texts: str) -> tuple[list[str], list[str]]:
    answers = [Answer(text, begins_in_code=True, is_cut=False) for text in texts]
    implementations, rejected = collect_implementations(function, locate(function), answers)
    return [each.module_source for each in implementations], [each.reason for each in rejected]


def test_the_body_is_new_and_all_else_stays() -> None:
    answer = AREA + "        product = double(self.width) * self.height\n        return product * factor / 2\n"
    helper = "\ndef double(x):\n    return x * 2\n\ndef helper(x):\n    return 'the module has its own'\n"
    (module,), _ = collected(SHAPE_AREA, answer + helper)
    expected = SHAPE_MODULE.replace(
        "        # the secret of it\n        return self.width * self.height * factor\n        # no more\n",
        "        product = double(self.width) * self.height\n        return product * factor / 2\n",
    )
    assert module == expected + "\n\ndef double(x):\n    return x * 2\n"
    ast.parse(module)


def test_the_mined_function_itself_is_no_independent_implementation() -> None:
    memorised = AREA + "        # other words\n        return (self.width * self.height * factor)\n"
    assert collected(SHAPE_AREA, memorised) == ([], [MEMORISED])


def test_equal_bodies_are_one() -> None:
    first = "def clamp(value, low, high):\n    bounded = min(high, value)\n    return max(low, bounded)\n"
    modules, reasons = collected(CLAMP, first, first.replace("bounded", "top"))
    assert len(modules) == 1
    assert reasons == [DUPLICATE]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("def clamp(value, low):\n    return low\n", "has another signature"),
        ("def clamp(value, low, high=1):\n    return low\n", "has another signature"),
        ("def limit(value, low, high):\n    return low\n", "does not define the function"),
        ("def clamp(value, low, high):\n    pass\n", "does nothing"),
        ("def clamp(value, low, high):\n    raise NotImplementedError('soon')\n", "does nothing"),
        ("def clamp(value, low, high):\n    import numpy\n    return numpy.clip(value, low, high)\n", "imports numpy"),
        ("def clamp(value, low, high):\n    return (\n", "does not parse"),
    ],
)
def test_what_is_no_implementation_is_refused(answer: str, reason: str) -> None:
    modules, (found,) = collected(CLAMP, answer)
    assert modules == []
    assert found.startswith(reason)


def test_annotations_are_no_part_of_a_signature() -> None:
    modules, _ = collected(
        CLAMP, "def clamp(value: int, low: int, high: int) -> int:\n    return sorted([low, value, high])[1]\n"
    )
    assert len(modules) == 1


def test_a_body_that_was_cut_is_not_taken_for_a_whole_one() -> None:
    """Its first half parses, and would count as an implementation that disagrees."""
    body = "def clamp(value, low, high):\n    if value < low:\n        return low\n    return min(high, val"
    for text, is_cut in ((body, True), (body + "ue", True), (body + "ue +", False)):
        found = collect_implementations(CLAMP, locate(CLAMP), [Answer(text, True, is_cut)])
        assert found[0] == []
        assert [each.reason for each in found[1]] == ["ends within the function"]
    followed = body + "ue)\n\ndef helper(x):\n    return x\n\ndef more("
    assert len(collect_implementations(CLAMP, locate(CLAMP), [Answer(followed, True, True)])[0]) == 1


@pytest.mark.parametrize(
    ("name", "docstring", "is_asked"),
    [
        ("f", "", False),
        ("_helper", "", False),
        ("run", "", False),
        ("f", "Doubles x.", True),
        ("_split_words", "", True),
    ],
)
def test_only_what_is_described_is_asked_for(name: str, docstring: str, is_asked: bool) -> None:
    function = mined(f"def {name}(x):\n    return x * 2\n", name, docstring)
    assert (why_not_asked(function) is None) == is_asked


@pytest.mark.parametrize(
    "module",
    [
        "def clamp(value, low, high): return low\n",
        "clamp = max\n",
        "if True:\n    def clamp(value):\n        return 1\n",
        "(",
    ],
)
def test_a_function_that_cannot_be_cut_out_is_said_so(module: str) -> None:
    with pytest.raises(ValueError, match="clamp"):
        locate(mined(module, "clamp"))


def test_a_located_function_adds_up_to_its_module() -> None:
    for function, module in ((CLAMP, CLAMP_MODULE), (SHAPE_AREA, SHAPE_MODULE)):
        source = locate(function)
        assert source.before + source.header + source.body + source.after == module
        assert "secret" not in source.header + source.without_body
