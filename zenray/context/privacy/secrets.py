"""Secrets in text: found by their formats, and by random strings given to names such as `api_key`.

A regular expression for all of them would read source at some 10 MB/s. Nearly every secret holds a long run of letters
and digits, so runs are found first, by a search of substrings that skips (`_long_runs`), and only those with digits in
them are looked at; what is short or holds other characters stands behind one of four words. Every pattern is bounded
and has one way to match, so that time grows with the text's length alone.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """Characters [start, end) of a text. `kind` is format, assignment, password, url or private_key."""

    start: int
    end: int
    kind: str


def redact(text: str) -> str:
    """`text` with the characters of secrets replaced by `*`, one for one and no line break touched: offsets, columns
    and lines stay what they were. Redact a document whole before cutting a window out of it, which may cut a secret."""
    spans = secrets_in(text)
    if not spans:
        return text
    parts: list[str] = []
    done = 0
    for span in spans:
        parts += (text[done : span.start], _NOT_SPACE.sub("*", text[span.start : span.end]))
        done = span.end
    return "".join((*parts, text[done:]))


def secrets_in(text: str) -> list[Span]:
    """Where `text` holds secrets, in order and without overlaps."""
    data = text.encode("utf-8", "surrogatepass")
    spans = (*_in_runs(data), *_passwords(data), *_in_urls(data), *_private_keys(data))
    found = sorted(_of_whole_characters(span, data) for span in spans)
    return _in_characters(_without_overlaps(found), data, is_ascii=len(data) == len(text))


_NOT_SPACE = re.compile(r"\S")

_MIN_RUN = 16
_RUN = b"x" * _MIN_RUN
_RUN_CHARACTERS = (string.ascii_letters + string.digits + "_-+/").encode()
_AS_RUNS = bytes(ord("x") if code in _RUN_CHARACTERS else ord(" ") for code in range(256))

# What the issuers of tokens begin them with; the pattern below says how they go on.
_PREFIXES = (
    *(b"AKIA", b"ASIA", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"gldt-", b"glrt-"),
    *(b"xoxa-", b"xoxb-", b"xoxe-", b"xoxo-", b"xoxp-", b"xoxr-", b"xoxs-", b"xapp-", b"services/T", b"api/webhooks/"),
    *(b"sk_live_", b"rk_live_", b"sk_test_", b"rk_test_", b"whsec_", b"AIza", b"ya29.", b"GOCSPX-", b"sk-", b"eyJ"),
    *(b"npm_", b"pypi-", b"SG.", b"hf_", b"dop_v1_", b"shpat_", b"shpss_", b"shpca_", b"key-", b"sq0", b"glsa_"),
    *(b"dckr_pat_", b"rubygems_", b"AGE-SECRET-KEY-1", b"nvapi-", b"gsk_", b"xai-", b"tskey-", b"hvs.", b":AA", b"SK"),
)
_PREFIX = re.compile(b"|".join(map(re.escape, _PREFIXES)))
_BEHIND_DOT = 5
"""How far before a run a prefix may begin that holds a character which no run holds."""

_FORMAT = re.compile(
    rb"""(?<![A-Za-z0-9])(?:
    (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])
    | gh[pousr]_[A-Za-z0-9]{30,255} | github_pat_\w{22,255}
    | gl(?:pat|dt|rt)-[\w-]{20,255}
    | xox[abeoprs]-[\w-]{10,255} | xapp-[\w-]{20,255}
    | (?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,255} | whsec_[A-Za-z0-9+/]{20,255}
    | AIza[\w-]{35} | ya29\.[\w-]{20,512} | GOCSPX-[\w-]{20,64}
    | sk-(?:(?:proj|ant|or|svcacct|admin)-[\w-]{20,255} | [A-Za-z0-9]{20,255})
    | eyJ[\w-]{8,4096}\.eyJ[\w-]{8,8192}\.[\w-]{10,2048}
    | npm_[A-Za-z0-9]{36} | pypi-AgE[\w-]{50,512}
    | SG\.[\w-]{16,32}\.[\w-]{16,64} | hf_[A-Za-z0-9]{30,64} | hvs\.[\w-]{24,255}
    | dop_v1_[0-9a-f]{64} | shp(?:at|ss|ca)_[0-9a-fA-F]{32} | key-[0-9a-f]{32} | SK[0-9a-f]{32}
    | sq0[a-z]{3}-[\w-]{22,64} | glsa_\w{32,64} | dckr_pat_[\w-]{20,64} | rubygems_[0-9a-f]{48}
    | AGE-SECRET-KEY-1[0-9A-Z]{58} | nvapi-[\w-]{40,128} | gsk_[A-Za-z0-9]{40,128} | xai-[A-Za-z0-9]{60,128}
    | tskey-[\w-]{20,128}
    )
    | (?<=services/)T[A-Z0-9]{8,16}/B[A-Z0-9]{8,16}/[A-Za-z0-9]{20,64}
    | (?<=api/webhooks/)[0-9]{16,24}/[\w-]{50,100}
    | (?<=[0-9]{8}):AA[\w-]{32,40}""",
    re.VERBOSE,
)
_KEPT_IN_FRONT = (b"services/", b"api/webhooks/")
"""Parts of the prefixes that say where a token goes and are none of it."""

_DIGIT = re.compile(rb"[0-9]")


def _in_runs(data: bytes) -> Iterator[Span]:
    for start, end in _long_runs(data):
        run = data[start : min(end, start + _LONGEST_VALUE + 1)]
        if _DIGIT.search(run) is None and not run.startswith(_PREFIXES):
            continue
        yield from _formats(data, start, end)
        if len(run) <= _LONGEST_VALUE and _is_given_to_secret(data, start) and _is_random(run):
            value = _value_around(data, start, end)
            if not _DOTTED_NAME.fullmatch(data, *value):
                yield Span(*value, "assignment")


def _long_runs(data: bytes) -> Iterator[tuple[int, int]]:
    """Where 16 or more of the characters that tokens are made of stand together."""
    runs = data.translate(_AS_RUNS)
    start = runs.find(_RUN)
    while start >= 0:
        end = runs.find(b" ", start + _MIN_RUN)
        end = len(runs) if end < 0 else end
        yield start, end
        start = runs.find(_RUN, end)


def _formats(data: bytes, start: int, end: int) -> Iterator[Span]:
    """Tokens of known make that begin in the run [start, end), or little before it."""
    at = max(0, start - _BEHIND_DOT)
    while (prefix := _PREFIX.search(data, at, end)) is not None:
        begin = prefix.start()
        if prefix.group().startswith(_KEPT_IN_FRONT):
            begin += prefix.group().index(b"/", prefix.group().startswith(b"api") * 4) + 1
        found = _FORMAT.match(data, begin)
        if found is not None:
            yield Span(*found.span(), "format")
        at = found.end() if found is not None else prefix.start() + 1


_LONGEST_VALUE = 512
"""Longer runs are data: pictures, keys in other forms, tables."""

_HEX = re.compile(rb"[0-9a-fA-F-]+")
_CHANGES = re.compile(rb"[0-9]+[A-Za-z]|[A-Za-z]+[0-9]")
_WORDS_OF_NAMES = re.compile(rb"[A-Z][a-z]{3,}+|(?<![A-Za-z0-9])[a-z]{3,}+(?![A-Za-z0-9])")
_DOTTED_NAME = re.compile(rb"[A-Za-z_]\w*+(?:\.[A-Za-z_]\w*+)++")


def _is_random(run: bytes) -> bool:
    """Letters and digits in no order that a name or a path would have; entropies as gitleaks' generic rule has them."""
    num_changes = len(_CHANGES.findall(run))
    if num_changes < 3 or (num_changes < 6 and sum(map(len, _WORDS_OF_NAMES.findall(run))) > 0.4 * len(run)):
        return False
    entropy = -sum(count / len(run) * math.log2(count / len(run)) for count in Counter(run).values())
    return entropy >= (2.8 if _HEX.fullmatch(run) else 3.5)


_VALUE_RIGHT = re.compile(rb"[^\s\"'`,;()<>\[\]{}]{0,64}")


def _value_around(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The run with what else belongs to its value, such as dots or a percent sign."""
    left = next(
        (at for at in range(start, max(0, start - 64), -1) if data[at - 1] in b"\t\r\n \"'`,;=:()<>[]{}"),
        max(0, start - 64),
    )
    right = _VALUE_RIGHT.match(data, end)
    assert right is not None
    return left, right.end()


_SECRET_NAMES = (
    *(b"secret", b"token", b"passw", b"passphrase", b"pwd", b"credential", b"bearer", b"basic", b"authorization"),
    *(b"api_key", b"apikey", b"api-key", b"access_key", b"accesskey", b"access-key", b"auth_key", b"authkey"),
    *(b"private_key", b"privatekey", b"private-key", b"account_key", b"accountkey", b"encryption_key", b"signing_key"),
    b'"auth"',
)
_TO_VALUE = re.compile(
    rb"\w{0,40}+[^\w\n]{1,12}+(?:(?:value|default|str|string|const|bearer|basic|token)[^\w\n]{1,8}+)?"
    rb"[^\s\"'`,;=:()<>\[\]{}]{0,64}"
)
_CONTEXT = 96


def _is_given_to_secret(data: bytes, start: int) -> bool:
    """Whether what begins at `start` follows a telling name on its line: `name = "`, `"name": "`, `name("`, ..."""
    before = data[max(0, start - _CONTEXT, data.rfind(b"\n", max(0, start - _CONTEXT), start) + 1) : start].lower()
    name_end = max((before.rfind(name) + len(name) for name in _SECRET_NAMES if name in before), default=-1)
    return name_end >= 0 and _TO_VALUE.fullmatch(before, name_end) is not None


_PASSWORD_NAMES = (b"passw", b"passphrase", b"pwd", b"secret")
_PASSWORD = re.compile(
    rb"""\w{0,40}+["'\]]{0,2}+(?:
        [ \t]{0,8}+(?:=>|:=|==|=|:)[ \t]{0,8}+
        (?: [bfru]{0,2}+(["'`])(?P<quoted>(?:(?!\1)[^\s\\]){6,200}+)\1
          | (?P<bare>[^\s"'`()\[\]{}<>$,;\\]{8,120}+)(?=[ \t]*+(?:\r?\n|\Z|\#)) )
      | =(?P<in_line>[^\s"'`()\[\]{}<>$,;\\]{8,120}+)(?=[ \t]) )""",
    re.VERBOSE,
)
_WORDS = re.compile(rb"[_./:-]*+(?:[A-Za-z]{2,}+[0-9]{0,2}+(?:[_./:,-]++|\Z))++")
_WORD_WITH_DIGITS = re.compile(rb"[A-Za-z]{3,}+[0-9]+")
_TALKS_OF_IT = re.compile(rb"pass|secret|pwd|token|key|name|user|field|input|label|text|hash|type", re.IGNORECASE)
_TEMPLATE = re.compile(rb"\$[{(\w]|\{[\w.]*\}|\{\{|%\(|%s|<\w|\*\*\*|xxx|\.\.\.|://", re.IGNORECASE)


def _passwords(data: bytes) -> Iterator[Span]:
    lower = data.lower()
    for name in _PASSWORD_NAMES:
        at = lower.find(name)
        while at >= 0:
            found = _PASSWORD.match(data, at + len(name))
            if found is not None:
                kind = found.lastgroup
                assert kind is not None
                if _is_password(found[kind], is_quoted=kind == "quoted", may_be_word=name != b"secret"):
                    yield Span(*found.span(kind), "password")
            at = lower.find(name, at + len(name))


def _is_password(value: bytes, is_quoted: bool, may_be_word: bool) -> bool:
    """No words, no name of a variable, no place for one."""
    if _DIGIT.search(value) is None or not re.search(rb"[A-Za-z]", value) or _TEMPLATE.search(value):
        return False
    if _WORDS.fullmatch(value):  # hunter2, but not password2
        is_one_word = _WORD_WITH_DIGITS.fullmatch(value) is not None
        return is_quoted and may_be_word and is_one_word and not _TALKS_OF_IT.search(value)
    if is_quoted or re.search(rb"[!#%&*+?@^~]", value):
        return True
    is_long = len(value) >= 32 and re.search(rb"[A-Z]", value) is not None
    return (is_long or len(_DIGIT.findall(value)) > 1) and re.search(rb"[_.]", value) is None


_URL_PASSWORD = re.compile(rb"://[^\s:/@\"'`<>\\\[]{0,80}+:([^\s:/@\"'`<>\\\[]{3,200}+)@")
_STAND_INS = frozenset((b"password", b"passwd", b"pass", b"pwd", b"secret", b"token", b"user", b"username"))


def _in_urls(data: bytes) -> Iterator[Span]:
    at = data.find(b"://")
    while at >= 0:
        found = _URL_PASSWORD.match(data, at)
        if found is not None and found[1].lower() not in _STAND_INS and not _TEMPLATE.search(found[1]):
            yield Span(*found.span(1), "url")
        at = data.find(b"://", at + 3)


_KEY_WORDS = b"PRIVATE KEY"
_MARKER_END = re.compile(rb"(?: BLOCK)?-----")
_LONGEST_KEY = 16_384
_KEY_BODY = re.compile(rb"(?:[A-Za-z0-9+/=\s\"',+]|\\[nr]){0,16384}+")
_KEY_LINE = re.compile(rb"[A-Za-z0-9+/=]{32}")
_KEY_BODY_BEFORE = re.compile(rb"[A-Za-z0-9+/=\s\"',+\\]{0,16384}\Z")


def _private_keys(data: bytes) -> Iterator[Span]:
    """Bodies of PEM and PGP keys; also those of which only one end is there."""
    at, done = data.find(_KEY_WORDS), 0
    while at >= 0:
        marker = _MARKER_END.match(data, at + len(_KEY_WORDS))
        dashes = data.rfind(b"-----", max(done, at - 32), at)
        if marker is not None and dashes >= 0:
            if data.startswith(b"-----BEGIN", dashes):
                start = marker.end()
                end = data.find(b"-----END", start, start + _LONGEST_KEY)
                if end < 0:
                    body = _KEY_BODY.match(data, start)
                    end = start if body is None else body.end()
            else:
                end = dashes
                start = _body_start(data, max(done, dashes - _LONGEST_KEY), dashes)
            if _KEY_LINE.search(data, start, end):
                yield Span(start, end, "private_key")
            done = max(end, marker.end())
        at = data.find(_KEY_WORDS, at + len(_KEY_WORDS))


_NOT_KEY_BODY = re.compile(rb"[^A-Za-z0-9+/=\s\"',\\]")


def _body_start(data: bytes, start: int, end: int) -> int:
    """Behind the last character of [start, end) that no key's body holds."""
    return start + max((found.end() for found in _NOT_KEY_BODY.finditer(data[start:end])), default=0)


def _of_whole_characters(span: Span, data: bytes) -> Span:
    """The patterns count bytes, so one may stop in the midst of a character."""
    start, end = span.start, span.end
    while start > 0 and data[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return span._replace(start=start, end=end)


def _without_overlaps(spans: list[Span]) -> list[Span]:
    """Sorted spans with those that overlap made one."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.start < joined[-1].end:
            joined[-1] = joined[-1]._replace(end=max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined


def _in_characters(spans: list[Span], data: bytes, is_ascii: bool) -> list[Span]:
    """Spans of UTF-8 bytes as those of the text."""
    if is_ascii:
        return spans
    counted, at, num_characters = [], 0, 0
    for span in spans:
        num_characters += len(data[at : span.start].decode("utf-8", "surrogatepass"))
        length = len(data[span.start : span.end].decode("utf-8", "surrogatepass"))
        counted.append(Span(num_characters, num_characters + length, span.kind))
        at, num_characters = span.end, num_characters + length
    return counted
