"""Where a completion ends because of what it says: the rules a request asks for, as one `TextRule`."""

from __future__ import annotations

from collections.abc import Sequence

from zenray.context.languages.registry import language as language_named
from zenray.context.suggestion.bracket_scope import BracketScope
from zenray.context.suggestion.code_fence import CodeFence
from zenray.context.suggestion.indentation_scope import IndentationScope, is_offside
from zenray.context.suggestion.line_rules import LineByLine, LineRule
from zenray.context.suggestion.repetition import Repetition
from zenray.context.suggestion.single_line import SingleLine
from zenray.context.suggestion.suffix_match import SuffixMatch
from zenray.engine.request import TextStops
from zenray.engine.stopping import TextRule

_BRACKET_LANGUAGES = """
    actionscript apex bicep c cairo capnp cpp csharp css cue cuda-cpp d dart gleam glsl gn go graphql groovy hack hare
    haxe hcl hlsl java javascript javascriptreact json json5 jsonc jsonl jsonnet kdl kotlin less mlir nginx nix
    nushell objective-c objective-cpp odin opencl perl perl6 php pony powershell prisma proto qml r rego ron rust scala
    scss smithy solidity squirrel swift tcl terraform thrift typescript typescriptreact typst v vala wgsl zig
"""
_PROSE = frozenset({"", "plaintext", "markdown", "latex", "tex", "bibtex", "restructuredtext", "asciidoc"})
"""Without scopes."""


def make_text_rule(stops: TextStops) -> TextRule:
    """The rule for one text; a `zenray.engine.stopping.MakeTextRule`.

    Scopes are told by brackets where brackets make them, else by indentation, and none goes on behind a code fence;
    text without scopes has no scope end.
    What matches the suffix is cut where that begins, before any other rule would cut it.
    """
    known = language_named(stops.language)
    language = known.id if known else stops.language

    def make_rules() -> Sequence[LineRule]:
        rules: list[LineRule] = []
        if stops.suffix_match and stops.after.strip():
            by_indentation = stops.scope_end and is_offside(language)
            rules.append(SuffixMatch(language, stops.before, stops.after, ends_by_indentation=by_indentation))
        if stops.scope_end and language not in _PROSE:
            has_blocks = language in _BRACKET_LANGUAGES.split()
            rules.append(BracketScope(language, stops.before, stops.after, has_blocks=has_blocks))
            rules.append(CodeFence(stops.before, stops.after))
            if not has_blocks:
                rules.append(IndentationScope(language, stops.before, stops.after))
        if stops.repetition:
            rules.append(Repetition(stops.before, stops.after))
        if stops.single_line:
            rules.append(SingleLine())
        return rules

    return LineByLine(make_rules)
