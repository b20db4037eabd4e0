"""Three kinds of prompts on which drafting differs, as token ids: fresh code, infill and edits.

fresh: HumanEval's function heads with docstrings (Chen et al. 2021, arXiv 2107.03374; MIT licence, shipped in
`zenray/bench/data/`), where little of the answer stands anywhere before. infill: holes cut in the standard library
of the running interpreter. edit: an instruction to rewrite a function with one small change, so that nearly all of
the answer stands in the prompt. The same seed, tokenizer and interpreter give the same prompts.
"""

from __future__ import annotations

import ast
import gzip
import json
import random
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from zenray.bench.prompts import CHARACTERS_PER_TOKEN, SOURCE_FILES
from zenray.model.tokenizer import Tokenizer

SpeculativeKind = Literal["fresh", "infill", "edit"]
SPECULATIVE_KINDS: tuple[SpeculativeKind, ...] = ("fresh", "infill", "edit")

MAX_TOKENS: dict[SpeculativeKind, int] = {"fresh": 128, "infill": 64, "edit": 256}

_PREFIX_TOKENS, _SUFFIX_TOKENS = (200, 500), (100, 300)
_EDIT_TOKENS = (100, 300)
_LONGEST_HOLE_LINES = 3
_NEW_NAMES = ("candidate", "payload", "current", "given", "subject")


@dataclass(frozen=True, slots=True)
class SpeculativePrompt:
    """One prompt; `name` is unique within its kind, `max_tokens` what a natural answer needs."""

    kind: SpeculativeKind
    name: str
    token_ids: tuple[int, ...]
    max_tokens: int


def speculative_prompts(
    tokenizer: Tokenizer, kind: SpeculativeKind, count: int, seed: int = 0
) -> tuple[SpeculativePrompt, ...]:
    """`count` different prompts of a kind; the first of a longer list are those of a shorter one.

    A tokenizer without infill tokens gets infill prompts that end at the cursor, one without chat tokens the
    plain text of an edit.

    Raises:
        ValueError: there are fewer prompts of that kind (HumanEval has 164), or no standard library to cut from.
    """
    makers: dict[SpeculativeKind, Callable[[Tokenizer, random.Random], Iterator[tuple[str, list[int]]]]] = {
        "fresh": _fresh,
        "infill": _infill,
        "edit": _edit,
    }
    made = makers[kind](tokenizer, random.Random(f"{kind}-{seed}"))
    prompts = [
        SpeculativePrompt(kind, name, tuple(token_ids), MAX_TOKENS[kind])
        for _, (name, token_ids) in zip(range(count), made, strict=False)
    ]
    if len(prompts) < count:
        raise ValueError(f"only {len(prompts)} prompts of kind {kind}, {count} wanted")
    return tuple(prompts)


def _fresh(tokenizer: Tokenizer, rng: random.Random) -> Iterator[tuple[str, list[int]]]:
    data = resources.files("zenray.bench").joinpath("data/HumanEval.jsonl.gz").read_bytes()
    tasks = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
    rng.shuffle(tasks)
    for task in tasks:
        yield task["task_id"], tokenizer.encode(task["prompt"].rstrip("\n") + "\n")


def _infill(tokenizer: Tokenizer, rng: random.Random) -> Iterator[tuple[str, list[int]]]:
    """Holes from the middle of a line to its end and holes of whole lines, about as many of each."""
    sources = _library()
    taken: set[tuple[str, int]] = set()
    for number in range(sum(map(len, sources.values()))):
        name = rng.choice(list(sources))
        lines = sources[name].splitlines(keepends=True)
        first = rng.randrange(len(lines) // 4, len(lines) * 3 // 4)
        line = lines[first]
        indent = len(line) - len(line.lstrip())
        if not indent or len(line.strip()) < 20 or line.lstrip().startswith("#") or (name, first) in taken:
            continue
        taken.add((name, first))
        if number % 2:
            last, cursor = first, rng.randrange(indent + 4, len(line.rstrip()) - 6)
        else:
            last, cursor = first + rng.randrange(_LONGEST_HOLE_LINES), indent
        before = "".join(lines[:first]) + line[:cursor]
        after = "\n" + "".join(lines[last + 1 :])
        prefix_ids = _encode_end(tokenizer, before, rng.randint(*_PREFIX_TOKENS))
        suffix_ids = _encode_start(tokenizer, after, rng.randint(*_SUFFIX_TOKENS))
        fim = tokenizer.fim
        token_ids = [fim.prefix, *prefix_ids, fim.suffix, *suffix_ids, fim.middle] if fim else prefix_ids
        yield f"{name}:{first + 1}:{cursor}", token_ids


def _edit(tokenizer: Tokenizer, rng: random.Random) -> Iterator[tuple[str, list[int]]]:
    pieces = [(name, node, code) for name, text in _library().items() for node, code in _functions(text)]
    rng.shuffle(pieces)
    for name, node, code in pieces:
        if not _EDIT_TOKENS[0] <= len(tokenizer.encode(code)) <= _EDIT_TOKENS[1]:
            continue
        instruction = _small_change(node, rng)
        if instruction:
            yield f"{name}:{node.lineno}", _chat(tokenizer, instruction, code)


def _small_change(node: ast.FunctionDef, rng: random.Random) -> str | None:
    """An instruction that changes a few tokens of the function; None when it has no such place."""
    used = Counter(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
    arguments = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
    often_used = [argument for argument in arguments if used[argument] >= 2]
    if not often_used:
        return None
    argument = rng.choice(often_used)
    new_name = rng.choice([word for word in _NEW_NAMES if word not in used])
    return rng.choice(
        (
            f"Rename the parameter `{argument}` to `{argument}_value` in this function.",
            f"Rename the parameter `{argument}` to `{new_name}` in this function.",
            f"Rename the function `{node.name}` to `{node.name}_checked`.",
            f'Add the line `if {argument} is None: raise TypeError("{argument}")` at the start of the body.',
        )
    )


def _chat(tokenizer: Tokenizer, instruction: str, code: str) -> list[int]:
    """The instruction in the ChatML template of Qwen2.5, the answer begun with its code fence."""
    system = "You are a helpful assistant that edits code."
    user = f"{instruction} Reply with the whole code and change nothing else.\n\n```python\n{code}\n```"
    answer = "```python\n"
    control = {tokenizer.control_token_text(token_id): token_id for token_id in tokenizer.control_token_ids}
    start, end = control.get("<|im_start|>"), control.get("<|im_end|>")
    if start is None or end is None:
        return tokenizer.encode(f"{user}\n\n{answer}")
    newline = tokenizer.encode("\n")
    turns = [("system", system), ("user", user)]
    token_ids = [
        token_id for role, text in turns for token_id in (start, *tokenizer.encode(f"{role}\n{text}"), end, *newline)
    ]
    return [*token_ids, start, *tokenizer.encode(f"assistant\n{answer}")]


def _functions(text: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Top-level functions of a module and their source."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            yield node, "\n".join(lines[node.lineno - 1 : node.end_lineno])


def _encode_end(tokenizer: Tokenizer, text: str, num_tokens: int) -> list[int]:
    """About the last `num_tokens` of the text, from a line's start where there is one."""
    start = max(0, len(text) - round(num_tokens * CHARACTERS_PER_TOKEN))
    return tokenizer.encode(text[text.find("\n", start) + 1 if start else 0 :])


def _encode_start(tokenizer: Tokenizer, text: str, num_tokens: int) -> list[int]:
    return tokenizer.encode(text[: text.find("\n", round(num_tokens * CHARACTERS_PER_TOKEN)) + 1 or None])


@cache
def _library() -> dict[str, str]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = {name: folder / name for name in SOURCE_FILES if (folder / name).is_file()}
    if not found:
        raise ValueError(f"no standard library sources under {folder}: tried {', '.join(SOURCE_FILES)}")
    return {name: path.read_text(encoding="utf-8") for name, path in found.items()}
