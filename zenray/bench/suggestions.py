"""How well stop rules and post-processing do, over real source.

    python -m zenray.bench.suggestions --json suggestions.json --doc docs/completion.md
    python -m zenray.bench.suggestions --corpus go=/usr/share/go/src --corpus c=~/redis/src --model qwen2.5-coder-0.5b

Without a model: gaps are cut into files, and the rules read what stood there and what follows. They should end the
text where the gap ends, and post-processing should leave the true text alone. With one: it completes some of the gaps
without any rule, and the report says how many suggestions leave the file parsing no worse than before: raw, ended by
the rules, and post-processed. Where no corpus is named, it is the standard library and the packages of the running
Python.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zenray.bench.document import write_blocks
from zenray.bench.machine import CpuClock
from zenray.bench.report import make_report, write_report
from zenray.bench.statistics import Distribution
from zenray.bench.suggestion_completions import MAX_TOKENS, Completion, recorded_completions
from zenray.bench.suggestion_gaps import GAP_KINDS, Gap, by_language, make_gaps
from zenray.bench.suggestion_tables import suggestions_markdown
from zenray.config import home
from zenray.context.languages.grammars import num_syntax_errors, parse
from zenray.context.suggestion.model import Suggestion
from zenray.context.suggestion.post_process import post_process
from zenray.context.suggestion.stops import make_text_rule
from zenray.engine.request import FinishReason, TextStops
from zenray.engine.stopping import TextEnd

_LANGUAGES = ("c", "cpp", "go", "java", "javascript", "python", "rust", "typescript")
_SUFFIX_CHARACTERS = 3000
"""How much of the true suffix the rules read behind the true text."""


def measure_rules(gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    """Where the rules end the true text followed by the true suffix, by language and kind of gap."""
    rows = []
    for language, of_language in by_language(gaps):
        for kind in GAP_KINDS:
            ends = [
                (gap, _end(gap, gap.middle + gap.after[:_SUFFIX_CHARACTERS])) for gap in of_language if gap.kind == kind
            ]
            counted = Counter(_judged(gap, end) for gap, end in ends)
            early = Counter(end.reason.value for gap, end in ends if end and _judged(gap, end) == "early")
            rows.append(
                {
                    "measure": "rules",
                    "language": language,
                    "kind": kind,
                    "gaps": len(ends),
                    **counted,
                    "early_by": early,
                }
            )
    return rows


def measure_true_texts(gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    """What post-processing does to the true texts, and what processor time it takes."""
    rows = []
    for language, of_language in by_language(gaps):
        taken_ms, outcomes = [], Counter[str]()
        for gap in of_language:
            began_s = time.thread_time()
            suggestion = _processed(gap, gap.middle, FinishReason.EOS)
            taken_ms.append((time.thread_time() - began_s) * 1e3)
            is_same = suggestion.text.rstrip() == gap.middle.rstrip()
            outcomes["left alone" if is_same else "filtered" if suggestion.filter else "changed"] += 1
        rows.append(
            {
                "measure": "true texts",
                "language": language,
                "gaps": len(of_language),
                **outcomes,
                "post_process_ms": asdict(Distribution.of(taken_ms)),
            }
        )
    return rows


@dataclass(frozen=True, slots=True)
class _Forms:
    """A completion raw, as the rules end it, and as it is shown."""

    raw: str
    ended: str
    end: TextEnd | None
    shown: Suggestion


def measure_completions(completions: dict[Gap, Completion]) -> list[dict[str, Any]]:
    """How a model's completions parse, by language, and how they ended."""
    rows = []
    for language, gaps in by_language(completions):
        forms = [(gap, _forms(gap, completions[gap])) for gap in gaps]
        parses = [counts for gap, form in forms if (counts := _no_worse(gap, form)) is not None]
        rows.append(
            {
                "measure": "completions",
                "language": language,
                "completions": len(forms),
                "parsed": len(parses),
                **{name: sum(each[name] for each in parses) for name in ("raw", "ended", "shown")},
                "exact_raw": sum(form.raw.rstrip() == gap.middle.rstrip() for gap, form in forms),
                "exact_shown": sum(form.shown.text.rstrip() == gap.middle.rstrip() for gap, form in forms),
                "reasons": Counter(
                    form.end.reason.value if form.end else completions[gap].finish_reason.value for gap, form in forms
                ),
                "cut_characters": sum(len(form.raw) - len(form.ended) for _, form in forms),
                "raw_characters": sum(len(form.raw) for _, form in forms),
                "changed": sum(bool(form.shown.changes) for _, form in forms),
                "filtered": sum(form.shown.filter is not None for _, form in forms),
            }
        )
    return rows


def _forms(gap: Gap, completion: Completion) -> _Forms:
    end = _end(gap, completion.text)
    ended = completion.text[: end.at] if end else completion.text
    reason = end.reason if end else completion.finish_reason
    return _Forms(completion.text, ended, end, _processed(gap, ended, reason))


def _no_worse(gap: Gap, form: _Forms) -> dict[str, bool] | None:
    """Which forms leave the whole file no more syntax errors than it had; None where that cannot be told."""
    base = _num_errors(gap, "")
    if base is None:
        return None
    texts = {"raw": form.raw, "ended": form.ended, "shown": form.shown.text}
    return {name: (_num_errors(gap, text) or 0) <= base for name, text in texts.items()}


def _num_errors(gap: Gap, text: str) -> int | None:
    tree = parse(gap.language, (gap.before + text + gap.after).encode("utf-8", "replace"))
    return None if tree is None else num_syntax_errors(tree)


def _end(gap: Gap, text: str) -> TextEnd | None:
    stops = TextStops(
        gap.language,
        gap.before,
        gap.after,
        scope_end=True,
        suffix_match=True,
        single_line=gap.kind == "part of line",
        repetition=True,
    )
    return make_text_rule(stops).find_end(text, 0)


def _judged(gap: Gap, end: TextEnd | None) -> str:
    """exact is up to white space."""
    if end is None:
        return "never"
    first, last = sorted((end.at, len(gap.middle)))
    between = (gap.middle + gap.after)[first:last]
    return "exact" if not between.strip() else "early" if end.at < len(gap.middle) else "late"


def _processed(gap: Gap, text: str, reason: FinishReason) -> Suggestion:
    return post_process(text, before=gap.before, after=gap.after, language=gap.language, finish_reason=reason)


def _corpora(named: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Languages, all if none is named, and the folders to read them from."""
    paths = sysconfig.get_paths()
    for spec in named or (f"python={paths['stdlib']}", paths["purelib"]):
        language, _, folder = spec.rpartition("=")
        yield language, Path(folder).expanduser()


def _gaps(corpora: Sequence[tuple[str, Path]], count: int, seed: int) -> list[Gap]:
    """Gaps of every language; a folder named for a language is the only one it is read from."""
    named = {language for language, _ in corpora if language}
    gaps = []
    for language in _LANGUAGES:
        roots = [folder for name, folder in corpora if name == language or (not name and language not in named)]
        gaps += make_gaps(roots, [language], count, seed)
    return gaps


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m zenray.bench.suggestions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", action="append", default=[], metavar="[LANGUAGE=]FOLDER")
    parser.add_argument("--gaps", type=int, default=500, help="of each language, for the rules")
    parser.add_argument("--completions", type=int, default=20, help="of each language, by the model")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b", help="pulled if need be; empty does without")
    parser.add_argument("--record", type=Path, default=home() / "suggestions.jsonl", help="completions, kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="REPORT")
    parser.add_argument("--doc", type=Path, help="whose block of suggestions to write again")
    options = parser.parse_args()
    clock, began_s = CpuClock.read(), time.monotonic()
    corpora = list(_corpora(options.corpus))
    gaps = _gaps(corpora, options.gaps, options.seed)
    rows = [*measure_rules(gaps), *measure_true_texts(gaps)]
    if options.model:
        some = [gap for _, of_language in by_language(gaps) for gap in of_language[: options.completions]]
        completions = recorded_completions(options.model, some, options.record, lambda: print(".", end="", flush=True))
        rows += measure_completions(completions)
    report = make_report(
        "suggestions",
        rows,
        prompts={"gaps": len(gaps), "seed": options.seed},
        settings={
            "model": options.model,
            "completions": options.completions,
            "max_tokens": MAX_TOKENS,
            "sources": ["/".join(folder.parts[-2:]) for _, folder in corpora],
        },
        bandwidth=None,
        foreign_cpu_share=clock.foreign_share(CpuClock.read(), time.monotonic() - began_s),
    )
    print(suggestions_markdown(report))
    if options.json is not None:
        write_report(report, options.json)
    if options.doc is not None:
        write_blocks(options.doc, report)


if __name__ == "__main__":
    main()
