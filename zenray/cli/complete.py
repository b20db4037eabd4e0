"""`zenray complete`: a completion at a place in a file, streamed into the terminal."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zenray.cli.options import DEFAULT_ADDRESS, Address
from zenray.errors import InvalidRequest

if TYPE_CHECKING:
    from zenray.v1.completion_pb2 import CompleteRequest
    from zenray.v1.context_pb2 import UpdateDocumentsRequest

_INPUT, _SAMPLING, _LIMITS, _OUTPUT, _SERVER = "Input", "Sampling", "Limits", "Output", "Server"
_CONTEXT = "Context, for FILE:LINE:COL"
_GRACE_S = 10.0
"""How much longer than the request's own deadline the call may take before it is given up."""


def complete(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE:LINE:COL",
            show_default=False,
            help="Where to complete. LINE and COL count from 1, in characters, as editors show them; COL 1 is before "
            "the first character. Without COL: the end of the line; without LINE: the end of the file.",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Continue this text instead; - reads it from stdin.", rich_help_panel=_INPUT)
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Text before the place to fill; - reads it from stdin.", rich_help_panel=_INPUT)
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="Text after it.", rich_help_panel=_INPUT)] = None,
    opened: Annotated[
        list[Path] | None,
        typer.Option(
            "--open", metavar="FILE", help="Another file the editor has open. Repeatable.", rich_help_panel=_CONTEXT
        ),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The folder being worked in, as `zenray index` knows it.", rich_help_panel=_CONTEXT
        ),
    ] = None,
    session: Annotated[
        str, typer.Option(metavar="ID", show_default=False, help="Go on in this session.", rich_help_panel=_CONTEXT)
    ] = "",
    max_tokens: Annotated[int | None, typer.Option(min=0, help="At most so many.", rich_help_panel=_LIMITS)] = None,
    max_lines: Annotated[int | None, typer.Option(min=0, help="0 is no limit.", rich_help_panel=_LIMITS)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text. Repeatable.", rich_help_panel=_LIMITS)
    ] = None,
    deadline_ms: Annotated[
        int | None, typer.Option(min=1, help="Answer with what there is by then.", rich_help_panel=_LIMITS)
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.", rich_help_panel=_SAMPLING)] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Of the k likeliest tokens; 0 of all.", rich_help_panel=_SAMPLING)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Of the likeliest tokens up to this mass.", rich_help_panel=_SAMPLING)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same text.", rich_help_panel=_SAMPLING)] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", min=1, help="Choices.", rich_help_panel=_SAMPLING)] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Complete nothing; show the prompt, where each part of it comes from and what was left out.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="The text as the model wrote it, no suggestion.", rich_help_panel=_OUTPUT),
    ] = False,
    stats: Annotated[
        bool,
        typer.Option(
            "--stats",
            help="Also print TTFT, tokens/s, cached tokens, and what each drafter proposed and got accepted "
            "(to stderr).",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON object per event and line: started, delta, final.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    model: Annotated[
        str, typer.Option(help="Refuse unless this model is served.", show_default=False, rich_help_panel=_SERVER)
    ] = "",
) -> None:
    """Complete code at FILE:LINE:COL, or continue a text, with the model a zenray server holds.

    On a terminal the new text is highlighted between its dimmed surroundings; into a pipe goes the new text alone.
    At FILE:LINE:COL it is the suggestion an editor would show.
    """
    from zenray.api.client import Client
    from zenray.cli.editor_session import editor_session, session_events, tell_of_missing_index
    from zenray.cli.explain import explain as show_prompt
    from zenray.cli.render import JsonLines, Plain, Recorder, Rendering, Terminal
    from zenray.cli.target import path_in, read_target
    from zenray.v1 import completion_pb2

    given = [name for name, value in (("FILE:LINE:COL", target), ("--prompt", prompt)) if value is not None]
    given += ["--prefix/--suffix"] if prefix is not None or suffix is not None else []
    if len(given) != 1:
        found = f"{' and '.join(given)} were given" if given else "nothing was given"
        raise typer.BadParameter(f"name one thing to complete: FILE:LINE:COL, --prompt or --prefix/--suffix; {found}")

    if target is None and (opened or workspace is not None):
        raise typer.BadParameter("--open and --workspace say what surrounds FILE:LINE:COL, which was not given")

    request = completion_pb2.CompleteRequest(model=model, session_id=session)
    before, after = "", ""
    beside: list[UpdateDocumentsRequest] = []
    try:
        if target is not None:
            place = read_target(target)
            before, after = place.prefix, place.suffix
            beside = session_events(opened or [], workspace)
            if workspace is not None:
                tell_of_missing_index(workspace)
            cursor = completion_pb2.Cursor(offset=place.offset, unit=completion_pb2.POSITION_UNIT_CODE_POINT)
            path = path_in(workspace, place.path)
            request.editor.CopyFrom(completion_pb2.EditorState(path=path, text=place.text, cursor=cursor))
        elif prompt is not None:
            before = _text("--prompt", prompt)
            request.prompt = before
        else:
            before, after = _text("--prefix", prefix or ""), _text("--suffix", suffix or "")
            request.infill.CopyFrom(completion_pb2.Infill(prefix=before, suffix=after))
        _fill(request, temperature, top_k, top_p, seed, n, max_tokens, max_lines, stop or [], deadline_ms)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from error

    is_suggestion = target is not None and not raw
    rendering: Rendering
    if as_json:
        rendering = JsonLines()
    elif sys.stdout.isatty():
        rendering = Terminal(before, after, num_choices=n or 1, is_suggestion=is_suggestion)
    else:
        rendering = Plain(num_choices=n or 1, is_suggestion=is_suggestion)
    timeout_s = None if deadline_ms is None else deadline_ms / 1000 + _GRACE_S
    with Client(address) as client, editor_session(client, session, beside) as used_id:
        request.session_id = used_id
        if explain:
            show_prompt(client.assemble(request), as_json)
            return
        recorder = Recorder()
        with closing(client.complete(request, timeout_s)) as events:
            try:
                for event in events:
                    recorder.see(event)
                    rendering.show(event)
            finally:
                rendering.end()
    if stats:
        rendering.show_stats(recorder)


def _text(option: str, value: str) -> str:
    """The option's text, or stdin for `-`. Raises InvalidRequest when it is not valid Unicode."""
    if value == "-":
        try:
            return sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest.of(option, "-", f"UTF-8 text on stdin; byte {error.start} is not") from error
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest.of(option, value, "UTF-8 text") from error
    return value


def _fill(
    request: CompleteRequest,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    n: int | None,
    max_tokens: int | None,
    max_lines: int | None,
    stop: list[str],
    deadline_ms: int | None,
) -> None:
    """Set what was given; the server fills in the rest. Raises InvalidRequest for what no message can hold."""
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "n": n}
    limits = {"max_tokens": max_tokens, "max_lines": max_lines, "deadline_ms": deadline_ms}
    for message, values in ((request.sampling, sampling), (request.limits, limits)):
        for name, value in values.items():
            if value is None:
                continue
            try:
                setattr(message, name, value)
            except ValueError as error:
                raise InvalidRequest.of(f"--{name.replace('_', '-')}", value, "a smaller value") from error
    request.limits.stop.extend(_text("--stop", text) if text != "-" else text for text in stop)
