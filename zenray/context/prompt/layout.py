"""The order of a prompt's parts, as control tokens and text.

    snippets, what lives longest first · text before the cursor · text after it          (PSM)
    snippets, what lives longest first · text after the cursor · text before it          (SPM)

A keystroke changes the end of the text before the cursor, so all that stands behind it is computed anew and all before
it is not: in PSM the text after the cursor is kept short and the rest of it stands among the snippets. A model with
`<|file_sep|>` has seen repositories written as `<|file_sep|>path`, a line end and the text (Qwen2.5-Coder, arXiv
2409.12186, section 3.1); for any other a comment names the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from zenray.context.budget import LayoutOrder
from zenray.context.languages.registry import comment
from zenray.context.pieces import ContextPiece, ContextSource, Snippet
from zenray.context.tokens import FimTokenIds, PromptTokenizer


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt and the ids it stands for."""

    piece: ContextPiece
    token_ids: Sequence[int]


def num_tokens(parts: Iterable[Part]) -> int:
    """Of all of them."""
    return sum(len(part.token_ids) for part in parts)


def control(token_id: int, tokenizer: PromptTokenizer) -> Part:
    """A control token."""
    text = tokenizer.control_token_text(token_id) or ""
    return Part(ContextPiece(ContextSource.CONTROL, text, 1), (token_id,))


def text_part(piece: ContextPiece, token_ids: Sequence[int]) -> Part:
    """Text, counted."""
    return Part(replace(piece, token_count=len(token_ids)), token_ids)


def file_header(path: str, language: str, tokenizer: PromptTokenizer) -> list[Part]:
    """What tells the model that a file of this path begins."""
    fim = tokenizer.fim
    if fim is not None and fim.file_sep is not None:
        named = f"{path}\n"
        return [
            control(fim.file_sep, tokenizer),
            text_part(ContextPiece(ContextSource.FILE_HEADER, named, 0, path), tokenizer.encode(named)),
        ]
    named = comment(language, f"File: {path}") + "\n"
    return [text_part(ContextPiece(ContextSource.FILE_HEADER, named, 0, path), tokenizer.encode(named))]


def repository_header(name: str, tokenizer: PromptTokenizer) -> list[Part]:
    """What tells the model that files of one repository follow; nothing without a name or a token for it."""
    fim = tokenizer.fim
    if not name or fim is None or fim.repo_name is None:
        return []
    named = f"{name}\n"
    return [
        control(fim.repo_name, tokenizer),
        text_part(ContextPiece(ContextSource.FILE_HEADER, named, 0), tokenizer.encode(named)),
    ]


def snippet_parts(snippet: Snippet, score: float, language: str, tokenizer: PromptTokenizer) -> list[Part]:
    """A snippet under its header, ending with a line end. Its ids depend on nothing around it."""
    text = snippet.text if snippet.text.endswith("\n") else snippet.text + "\n"
    named = snippet.path or snippet.source.value.lower()
    if snippet.source is ContextSource.RECENT_EDIT:
        named += ".diff"
    has_lines = snippet.source is not ContextSource.CLIPBOARD
    piece = ContextPiece(
        snippet.source,
        text,
        0,
        snippet.path,
        snippet.start_line if has_lines else 0,
        snippet.end_line if has_lines else 0,
        score,
    )
    return [*file_header(named, language, tokenizer), text_part(piece, tokenizer.encode(text))]


def gap_parts(
    order: LayoutOrder,
    before: Part,
    after: Part,
    fim: FimTokenIds,
    tokenizer: PromptTokenizer,
    lead: Sequence[Part] = (),
) -> list[Part]:
    """The text around the cursor, for a model that infills. `lead` belongs to the text before it.

    SPM is the variant in which the text before the cursor runs on into the middle (Bavarian et al., arXiv 2207.14255,
    section 3, as CodeLlama has it).
    """
    prefix, suffix, middle = (control(token_id, tokenizer) for token_id in (fim.prefix, fim.suffix, fim.middle))
    if order == "psm":
        return [prefix, *lead, before, suffix, after, middle]
    return [prefix, suffix, after, middle, *lead, before]
