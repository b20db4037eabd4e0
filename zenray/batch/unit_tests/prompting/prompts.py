"""What the model is asked: tests of a function, and the function anew from what its header says.

Both begin with what a function's prompts share, its module up to the body, so that the prefix cache reads it once;
what tells requests apart comes last. An answer is begun for the model: it writes no heading, no fence and no import,
and cannot get the signature wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from zenray.batch.unit_tests.model import MinedFunction
from zenray.batch.unit_tests.prompting.chat import ChatLayout, Turn
from zenray.batch.unit_tests.prompting.prompts_source import FocalSource
from zenray.errors import InvalidRequest
from zenray.model.tokenizer import Tokenizer


class PromptStyle(Enum):
    """How a model is asked: by code that it continues, or by a conversation."""

    BASE = "base"
    INSTRUCT = "instruct"
    AUTO = "auto"  # A conversation where the model has its control tokens.


class Opening(Enum):
    """How much of its first test an answer is given; never a bracket, which makes one token with what follows."""

    NAME = "name"  # def test_f
    RESULTS = "results"  # def test_f(): assert f
    ERRORS = "errors"  # def test_f_errors(): with pytest.raises


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and the answer's given beginning, which the generated text continues."""

    token_ids: tuple[int, ...]
    answer: str
    stop: tuple[str, ...]


_SYSTEM = "You are an expert Python developer. You answer with one block of code."
_TEST_TASK = (
    "Write pytest tests for `{name}` of the module above. Each test is short, calls `{name}` with concrete values and "
    "asserts the exact result. No comments, no docstrings."
)
_IMPLEMENTATION_TASK = "Write the body of `{name}` of the module above. No comments."

_FENCE_END = "\n```"
_TEST_STOPS = (_FENCE_END, "\nclass ", "\nif __name__", "\n# focal.py", "\n\n\n\n")
_OUTSIDE = ("def ", "class ", "@", "if ", "for ", "assert ", "print(", "#", "from ", "import ")
"""Beginnings of what follows a function at its own level."""


class PromptWriter:
    """Prompts in one style, none longer than `max_tokens`."""

    def __init__(self, tokenizer: Tokenizer, style: PromptStyle, max_tokens: int) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._chat = None if style is PromptStyle.BASE else ChatLayout.discover(tokenizer)
        if style is PromptStyle.INSTRUCT and self._chat is None:
            raise InvalidRequest.of("style", style.value, "base or auto: the model has no <|im_start|> and <|im_end|>")

    @property
    def style(self) -> PromptStyle:
        return PromptStyle.BASE if self._chat is None else PromptStyle.INSTRUCT

    def tests(self, function: MinedFunction, opening: Opening) -> Prompt:
        """Asks for tests.

        What does not fit is left out: similar tests, the last first, then all of the module but the function. Raises
        InvalidRequest where the function alone is too long.
        """
        answer = f"import pytest\n\nfrom focal import {function.import_name}\n\n\n{_opened(function, opening)}"
        shown = [(function.module_source, count) for count in range(len(function.similar_tests), -1, -1)]
        for module, num_similar in [*shown, (function.source, 0)]:
            similar = function.similar_tests[:num_similar]
            if self._chat is None:
                examples = "".join(f"# Tests of similar code\n{test.strip()}\n\n\n" for test in similar)
                ids = self._base(f"# focal.py\n{module.strip()}\n\n\n{examples}# test_focal.py\n{answer}")
            else:
                examples = "".join(f"\n\nA test of similar code:\n{_fenced(test)}" for test in similar)
                task = _TEST_TASK.format(name=function.call_name)
                ids = self._conversation(f"{_fenced(module)}{examples}\n\n{task}", answer)
            if len(ids) <= self._max_tokens:
                return Prompt(tuple(ids), answer, _TEST_STOPS)
        raise self._too_long(function, len(ids))

    def implementation(self, function: MinedFunction, source: FocalSource) -> Prompt:
        """Asks for the function's body. The mined one is not shown, nor the module where that does not fit.

        Raises InvalidRequest where the header alone is too long.
        """
        answer = _opened_classes(source) + source.header
        opened = f"# focal.py\n{source.before}{source.header}"
        if source.after.strip():
            opened = f"# focal.py\n{source.without_body.strip()}\n\n\n# focal.py, completed\n{answer}"
        for module, continued in ((source.without_body, opened), (f"{answer}{source.indentation}...", answer)):
            if self._chat is None:
                ids = self._base(continued)
            else:
                task = _IMPLEMENTATION_TASK.format(name=function.call_name)
                ids = self._conversation(f"{_fenced(module)}\n\n{task}", answer)
            if len(ids) <= self._max_tokens:
                return Prompt(tuple(ids), answer, _implementation_stops(source))
        raise self._too_long(function, len(ids))

    def _base(self, text: str) -> list[int]:
        bos = self._tokenizer.bos_token_id if self._tokenizer.add_bos else None
        return [*([] if bos is None else [bos]), *self._tokenizer.encode(text)]

    def _conversation(self, request: str, answer: str) -> list[int]:
        assert self._chat is not None
        turns = (Turn("system", _SYSTEM), Turn("user", request))
        return self._chat.prompt(self._tokenizer, turns, f"```python\n{answer}")

    def _too_long(self, function: MinedFunction, num_tokens: int) -> InvalidRequest:
        return InvalidRequest.of(f"prompt of {function.call_name}", num_tokens, f"{self._max_tokens} tokens or less")


def _fenced(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def _opened(function: MinedFunction, opening: Opening) -> str:
    name = re.sub(r"\W+", "_", function.call_name).strip("_").lower()
    match opening:
        case Opening.NAME:
            return f"def test_{name}"
        case Opening.RESULTS:
            return f"def test_{name}():\n    assert {function.import_name}"
        case Opening.ERRORS:
            return f"def test_{name}_errors():\n    with pytest.raises"


def _opened_classes(source: FocalSource) -> str:
    """The lines that make a method's header whole: its class without what else it holds."""
    step = source.indentation[source.node.col_offset :]
    return "".join(f"{step * level}class {name}:\n" for level, name in enumerate(source.enclosing))


def _implementation_stops(source: FocalSource) -> tuple[str, ...]:
    """What follows a body: a line at the level of its header, or a closed fence."""
    own = source.indentation[: source.node.col_offset]
    return (_FENCE_END, *(f"\n{own}{word}" for word in _OUTSIDE))
