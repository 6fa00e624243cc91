"""Values inside a JSON file that know where they stand, so that a mistake in a dataset's list can be found.

Unknown keys are never looked at. Comments and NaN, which some writers leave in, are read.
"""

import json
import math
import re
from dataclasses import dataclass

import numpy as np

TOKENS = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


@dataclass(frozen=True)
class Node:
    """A JSON value of `file` at JSON pointer `pointer` (RFC 6901); "" is the whole file."""

    file: str
    pointer: str
    value: object

    @classmethod
    def read(cls, data: bytes, file: str) -> "Node":
        """raises ValueError naming the file when it holds no JSON object"""
        try:
            text = data.decode("utf-8-sig")
            text = TOKENS.sub(lambda found: found[0] if found[0][0] == '"' else " ", text)
            node = cls(file, "", json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not JSON ({error}); get the file again.") from error
        node.typed(dict)
        return node

    def fault(self, message: str) -> ValueError:
        return ValueError(f"{self.file} at {self.pointer or '/'}: {message}; repair the file.")

    def typed(self, *types: type):
        """The value, of one of the types."""
        if not isinstance(self.value, types) or (isinstance(self.value, bool) and bool not in types):
            wanted = " or ".join(kind.__name__ for kind in types)
            raise self.fault(f"found {type(self.value).__name__}, wanted {wanted}")
        return self.value

    def get(self, key: str) -> "Node | None":
        """The entry of an object; None when it is absent or null."""
        value = self.typed(dict).get(key)
        return None if value is None else Node(self.file, f"{self.pointer}/{key}", value)

    def __getitem__(self, key: str) -> "Node":
        if (node := self.get(key)) is None:
            raise self.fault(f"the entry {key} is missing")
        return node

    def items(self) -> list["Node"]:
        return [Node(self.file, f"{self.pointer}/{number}", value) for number, value in enumerate(self.typed(list))]

    def number(self) -> float:
        try:
            return float(self.typed(int, float))
        except OverflowError:
            return math.inf

    def text(self) -> str:
        return self.typed(str)

    def matrix(self, *shapes: tuple[int, int]) -> np.ndarray:
        """float64 of one of the shapes, NaN allowed."""
        rows = [[value.number() for value in row.items()] for row in self.items()]
        if (len(rows), *{len(row) for row in rows}) not in shapes:
            wanted = " or ".join(f"{height}x{width}" for height, width in shapes)
            raise self.fault(f"found rows of {[len(row) for row in rows]} numbers, wanted a {wanted} matrix")
        return np.array(rows)
