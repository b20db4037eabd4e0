"""Mined functions as the miner makes them, small enough to read."""

from __future__ import annotations

from zenray.batch.rows import row_id
from zenray.batch.unit_tests.model import MinedFunction, Provenance

SHAPE_MODULE = '''"""Shapes."""
import math

LIMIT = 3


class Shape:
    """A rectangle."""

    def __init__(self, width, height):
        self.width, self.height = width, height

    def area(self, factor=1):
        """Width times height times factor."""
        # the secret of it
        return self.width * self.height * factor
        # no more


def helper(x):
    return x + 1
'''

CLAMP_MODULE = '''def clamp(value, low, high):
    """The nearest number within low and high."""
    return max(low, min(high, value))
'''


def mined(
    module_source: str, call_name: str, docstring: str = "", similar_tests: tuple[str, ...] = ()
) -> MinedFunction:
    return MinedFunction(
        row_id=row_id(module_source, call_name),
        qualified_name=f"module.{call_name}",
        import_name=call_name.partition(".")[0],
        call_name=call_name,
        signature="",
        docstring=docstring,
        source=module_source,
        module_source=module_source,
        imports=(),
        class_context="",
        provenance=Provenance("repository", "1", "module.py", 1, 2),
        similar_tests=similar_tests,
    )


SHAPE_AREA = mined(SHAPE_MODULE, "Shape.area", "Width times height times factor.")
CLAMP = mined(CLAMP_MODULE, "clamp", "The nearest number within low and high.")
