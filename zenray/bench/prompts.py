"""The prompts of every benchmark: real Python code, cut from the standard library of the running interpreter.

The same interpreter gives the same prompts, whatever the target, and nothing has to be shipped or
licensed. `PromptSet.sha256` goes into every report: two reports with the same hash timed the same text.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PromptKind = Literal["short", "prefill", "long", "appended", "fim"]
KINDS: tuple[PromptKind, ...] = ("short", "prefill", "long", "appended", "fim")

SOURCE_FILES = (
    "statistics.py",
    "textwrap.py",
    "json/decoder.py",
    "configparser.py",
    "heapq.py",
    "difflib.py",
    "fractions.py",
    "shlex.py",
    "csv.py",
    "calendar.py",
    "dataclasses.py",
    "functools.py",
    "zipfile.py",
    "tarfile.py",
    "argparse.py",
    "pathlib.py",
)
"""Long enough for every cut, plain Python, in every supported interpreter; missing ones are skipped."""

CHARACTERS_PER_TOKEN = 4.2
"""Of Qwen2.5's tokenizer on these files; only used where no tokenizer is at hand."""

CountTokens = Callable[[str], int]

_FUNCTION_HEAD = re.compile(r"^ *def [a-z]\w*\(.*\):\n", re.MULTILINE)
_SHORT_SKIP = 12
"""Functions of a file left out before short and FIM cuts start, so that they do not repeat a long prompt's head."""


@dataclass(frozen=True, slots=True)
class PromptSizes:
    """Tokens of each kind of prompt."""

    short: int = 60
    prefill: int = 512
    long: int = 1500

    def within(self, num_tokens: int) -> PromptSizes:
        """The same, none longer than `num_tokens`: for models with a small context."""
        return PromptSizes(*(max(1, min(size, num_tokens)) for size in (self.short, self.prefill, self.long)))


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. `suffix` is set for fill-in-the-middle; `name` is unique within its kind.

    An "appended" prompt is the "long" one of the same name plus one line.
    """

    kind: PromptKind
    name: str
    text: str
    suffix: str | None = None

    def variant(self, number: int) -> Prompt:
        """The same prompt under a first line of its own, so that no prefix cache can know it."""
        return Prompt(self.kind, f"{self.name}#{number}", f"# variant {number}\n{self.text}", self.suffix)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts of every kind, in a fixed order, with the interpreter they were cut from."""

    prompts: tuple[Prompt, ...]
    python_version: str
    sha256: str

    def of(self, kind: PromptKind) -> tuple[Prompt, ...]:
        """The prompts of one kind, in order."""
        return tuple(prompt for prompt in self.prompts if prompt.kind == kind)

    @property
    def identity(self) -> dict[str, Any]:
        """What a report says of the prompts: equal where the same text was timed."""
        return {"sha256": self.sha256, "python": self.python_version, "count": len(self.prompts)}

    def pairs(self) -> Iterator[tuple[Prompt, Prompt]]:
        """Each long prompt with the same prompt one line later."""
        appended = {prompt.name: prompt for prompt in self.of("appended")}
        for prompt in self.of("long"):
            yield prompt, appended[prompt.name]


def estimate_tokens(text: str) -> int:
    """About how many tokens code is, without a tokenizer."""
    return round(len(text) / CHARACTERS_PER_TOKEN)


def build_prompts(
    count_tokens: CountTokens = estimate_tokens, per_kind: int = 8, sizes: PromptSizes | None = None
) -> PromptSet:
    """Cuts `per_kind` prompts of every kind; lengths are exact to a token where `count_tokens` is.

    Raises ValueError when the interpreter's standard library has no sources to cut from.
    """
    sizes = sizes or PromptSizes()
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = [(name, _read(library / name)) for name in SOURCE_FILES]
    prompts: list[Prompt] = []
    for name, text in sources:
        if len(prompts) == per_kind * len(KINDS):
            break
        prompts.extend(_cut_file(name, text, count_tokens, sizes))
    if not prompts:
        raise ValueError(f"no standard library sources under {library}: tried {', '.join(SOURCE_FILES)}")
    return make_set(prompts)


def make_set(prompts: Iterable[Prompt], python_version: str | None = None) -> PromptSet:
    """Groups prompts by kind and hashes them."""
    ordered = tuple(sorted(prompts, key=lambda prompt: KINDS.index(prompt.kind)))
    digest = hashlib.sha256("\n".join(map(_to_json, ordered)).encode()).hexdigest()
    return PromptSet(ordered, python_version or platform.python_version(), digest)


def write_jsonl(prompts: PromptSet, path: Path) -> None:
    """One JSON object per line: kind, name, prompt and, for FIM, suffix."""
    path.write_text("".join(f"{_to_json(prompt)}\n" for prompt in prompts.prompts), encoding="utf-8")


def read_jsonl(path: Path) -> PromptSet:
    """Reads what `write_jsonl` wrote, or any file of objects with a `prompt`; kind defaults to "short"."""
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if not line.strip():
            continue
        row = json.loads(line)
        kind = row.get("kind", "fim" if "suffix" in row else "short")
        if kind not in KINDS or not isinstance(row.get("prompt"), str):
            raise ValueError(f"{path}:{number + 1}: want an object with a text `prompt` and a `kind` of {KINDS}")
        prompts.append(Prompt(kind, str(row.get("name", number)), row["prompt"], row.get("suffix")))
    return make_set(prompts)


def longest_prefix(text: str, num_tokens: int, count_tokens: CountTokens) -> str:
    """The longest prefix of at most `num_tokens` tokens (token counts of prefixes are taken as monotone)."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[:middle]) <= num_tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _cut_file(name: str, text: str, count_tokens: CountTokens, sizes: PromptSizes) -> list[Prompt]:
    """One prompt of every kind from one file, or none when the file is missing or too short."""
    heads = list(_FUNCTION_HEAD.finditer(text))
    window = text[: max(2000, sizes.long * 8)]
    long = _whole_lines(longest_prefix(window, sizes.long, count_tokens))
    line = next((line for line in text[len(long) :].splitlines(keepends=True) if line.strip()), "")
    short = _short_cut(text, heads, count_tokens, sizes.short)
    if not heads or len(long) == len(window) or not line or short is None:
        return []
    cursor = heads[min(_SHORT_SKIP, len(heads) - 1)].end()
    before = text[_line_end(text, max(0, cursor - sizes.long * 3 // 5)) : cursor]
    after = _whole_lines(text[_line_end(text, cursor) : cursor + sizes.long // 2])
    return [
        Prompt("short", name, short),
        Prompt("prefill", name, longest_prefix(window, sizes.prefill, count_tokens)),
        Prompt("long", name, long),
        Prompt("appended", name, long + line),
        Prompt("fim", name, before, after),
    ]


def _short_cut(text: str, heads: list[re.Match[str]], count_tokens: CountTokens, num_tokens: int) -> str | None:
    """About `num_tokens` tokens of whole lines ending with a function's head, where a completion is natural."""
    for head in heads[_SHORT_SKIP:] or heads[-1:]:
        lines = text[: head.end()].splitlines(keepends=True)
        for start in range(len(lines) - 1, 0, -1):
            cut = "".join(lines[start:])
            if count_tokens(cut) >= num_tokens:
                if count_tokens(cut) <= num_tokens * 1.3:
                    return cut
                break
    return None


def _whole_lines(text: str) -> str:
    return text[: text.rfind("\n") + 1]


def _line_end(text: str, start: int) -> int:
    return text.find("\n", start) + 1


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _to_json(prompt: Prompt) -> str:
    row = {"kind": prompt.kind, "name": prompt.name, "prompt": prompt.text}
    if prompt.suffix is not None:
        row["suffix"] = prompt.suffix
    return json.dumps(row, ensure_ascii=False)
