"""`zenray complete --explain`: the prompt, where each part of it comes from, and what was left out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from rich.text import Text

from zenray.cli.console import printable, stdout, table
from zenray.v1 import completion_pb2

if TYPE_CHECKING:
    from zenray.v1.context_pb2 import AssembleResponse, ContextPiece, DroppedPiece

_STYLES = {
    "CONTROL": "black on bright_black",
    "FILE_HEADER": "bright_black italic",
    "PROMPT": "white",
    "PREFIX": "bold white",
    "SUFFIX": "bright_blue",
    "SAME_FILE": "blue",
    "OPEN_FILE": "cyan",
    "DEFINITION": "magenta",
    "IMPORT": "bright_magenta",
    "RECENT_EDIT": "yellow",
    "VIEWED": "green",
    "CLIPBOARD": "bright_yellow",
    "SNIPPET": "bright_green",
}
_NAMES = {
    "CONTROL": "control tokens",
    "FILE_HEADER": "file names",
    "PROMPT": "prompt",
    "PREFIX": "before the cursor",
    "SUFFIX": "after the cursor",
    "SAME_FILE": "this file, elsewhere",
    "OPEN_FILE": "open file",
    "DEFINITION": "definition",
    "IMPORT": "import",
    "RECENT_EDIT": "recent edit",
    "VIEWED": "viewed lately",
    "CLIPBOARD": "clipboard",
    "SNIPPET": "client's snippet",
}
_REASONS = {
    "duplicate": "says what the prompt says already",
    "budget": "did not fit",
    "secret": "a file made to hold secrets",
    "ignored": "ignored by the workspace's rules",
}
_MOST_DROPPED_SHOWN = 12
_BAR_WIDTH = 72


def explain(response: AssembleResponse, as_json: bool) -> None:
    """Print it."""
    if as_json:
        sys.stdout.write(json.dumps(_as_dict(response), ensure_ascii=False) + "\n")
        return
    console = stdout()
    for piece in response.pieces:
        source = _source(piece)
        text = printable(piece.text.replace("\r\n", "\n").replace("\r", "\n"))
        console.out(text, style=_STYLES[source], end="")  # unlike print, never wraps
        if source == "PREFIX" and response.forced_prefix:
            console.out(printable(response.forced_prefix), style="bold white underline", end="")
    console.print("\n")
    console.print(_bar(response))
    used, budget = len(response.token_ids), response.token_budget
    facts = f"{used:,} of {budget:,} tokens · assembled in {response.assemble_ms:.1f} ms"
    if response.dropped_tokens:
        facts += f" · about {response.dropped_tokens:,} tokens of this file left out"
    console.print(Text(facts, "quiet"))
    if response.forced_prefix:
        console.print(Text(f"the model writes {response.forced_prefix!r} again, underlined above", "quiet"))
    console.print()
    console.print(_pieces_table(response))
    if response.dropped_pieces:
        console.print()
        console.print(_dropped_table(response.dropped_pieces))


def _bar(response: AssembleResponse) -> Text:
    """The budget, a colour per source, in prompt order; what is free is dotted."""
    bar = Text()
    filled = tokens = 0
    for piece in response.pieces:
        tokens += piece.token_count
        end = round(tokens * _BAR_WIDTH / max(1, response.token_budget))
        source = _source(piece)
        colour = "bright_black" if source in ("CONTROL", "FILE_HEADER") else _STYLES[source]
        bar.append("█" * (end - filled), colour)
        filled = end
    bar.append("·" * (_BAR_WIDTH - filled), "bright_black")
    return bar


def _pieces_table(response: AssembleResponse) -> Any:
    made = table("", "source", "where", "score", "tokens", "share", right=("score", "tokens", "share"))
    frame = 0
    for piece in response.pieces:
        source = _source(piece)
        if source in ("CONTROL", "FILE_HEADER"):
            frame += piece.token_count
        elif piece.token_count:
            score = f"{piece.score:.4f}" if piece.score else ""
            where = _where(piece.path, piece.start_line, piece.end_line)
            made.add_row(_swatch(source), _NAMES[source], where, score, *_share(piece.token_count, response))
    made.add_row(Text("██", "bright_black"), "control tokens and names", "", "", *_share(frame, response))
    return made


def _dropped_table(dropped: Iterable[DroppedPiece]) -> Any:
    pieces = list(dropped)
    made = table("", "left out", "where", "score", "why", right=("score",))
    for piece in pieces[:_MOST_DROPPED_SHOWN]:
        source = _source(piece)
        score = f"{piece.score:.4f}" if piece.score else ""
        where = _where(piece.path, piece.start_line, piece.end_line)
        made.add_row(_swatch(source), _NAMES[source], where, score, _REASONS.get(piece.reason, piece.reason))
    if len(pieces) > _MOST_DROPPED_SHOWN:
        made.add_row("", Text(f"and {len(pieces) - _MOST_DROPPED_SHOWN} more", "quiet"), "", "", "")
    return made


def _swatch(source: str) -> Text:
    return Text("██", _STYLES[source])


def _share(tokens: int, response: AssembleResponse) -> tuple[str, str]:
    return f"{tokens:,}", f"{tokens / max(1, len(response.token_ids)):.0%}"


def _where(path: str, start_line: int, end_line: int) -> str:
    """Lines as editors count them."""
    if not path:
        return ""
    lines = f":{start_line + 1}" + (f"–{end_line}" if end_line > start_line + 1 else "") if end_line else ""
    return printable(f"{path}{lines}")


def _source(piece: ContextPiece | DroppedPiece) -> str:
    return str(completion_pb2.ContextSource.Name(piece.source)).removeprefix("CONTEXT_SOURCE_")


def _as_dict(response: AssembleResponse) -> dict[str, Any]:
    return {"event": "prompt", **MessageToDict(response, preserving_proto_field_name=True)}
