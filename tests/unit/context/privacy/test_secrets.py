"""Secrets are found wherever they stand, redaction moves nothing, and source without secrets is left as it is."""

from __future__ import annotations

import itertools
import random
import re
import string
import sysconfig
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zenray.context.privacy import redact, secrets_in
from zenray.context.privacy.secrets import Span

_MIXED = "a1B2c3D4e5F6g7H8i9J0kLmNoPqRsTuVwXyZ"
_HEX = "0123456789abcdef"
# Put together here, so that no scanner takes this file for a leak.
TOKENS = {
    "AWS": "AKIA" + "Q3EGRIV5T7XCAPLM",
    "GitHub": "ghp" + "_" + _MIXED,
    "GitHub, fine-grained": "github" + "_pat_" + _MIXED[:22] + "_" + _MIXED,
    "GitLab": "glpat" + "-" + _MIXED[:20],
    "Slack": "xoxb" + "-123456789012-" + _MIXED[:24],
    "Stripe": "sk" + "_live_" + _MIXED[:24],
    "Google": "AIza" + _MIXED[:35],
    "OpenAI": "sk" + "-" + _MIXED + _MIXED[:12],
    "OpenAI, project": "sk" + "-proj-" + _MIXED + "-" + _MIXED,
    "JWT": "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + "." + _MIXED,
    "npm": "npm" + "_" + _MIXED,
    "PyPI": "pypi" + "-AgEIcHlwaS5vcmc" + _MIXED * 2,
    "SendGrid": "SG" + "." + _MIXED[:22] + "." + _MIXED + _MIXED[:7],
    "Hugging Face": "hf" + "_" + string.ascii_letters[:34],
    "Vault": "hvs" + "." + _MIXED[:28],
    "Telegram": "123456789" + ":AA" + _MIXED[:33],
}
KEY_BODY = "\n".join(_MIXED[:32] * 2 for _ in range(8))
PRIVATE_KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_BODY}\n-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("line", ['x = "{}"', "curl -H 'X: {}'", "{}", "a={}&b=1", "`{}`,", "// {}."])
def test_tokens_of_known_makes_are_found_on_any_line(token: str, line: str) -> None:
    text = "é\r\n" + line.format(token) + "\nnext\n"
    redacted, start = redact(text), text.index(token)
    assert token[-16:] not in redacted
    assert redacted[:start] == text[:start]
    assert redacted[start + len(token) :] == text[start + len(token) :]


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "{}"',
        'const apiKey: string = "{}";',
        '"client_secret": "{}",',
        "export AUTH_TOKEN={}",
        "<add key='ApiKey' value='{}'/>",
        'setToken("{}")',
        "Authorization: Bearer {}",
        "https://host/path?access_token={}",
        "  secret-token: {}",
        'os.environ["APP_SECRET"] = "{}"',
    ],
)
@given(st.integers(0, 2**32), st.sampled_from([_HEX, string.ascii_letters + string.digits]), st.integers(28, 64))
@settings(max_examples=50, deadline=None)
def test_random_strings_given_to_telling_names_are_found(line: str, seed: int, alphabet: str, length: int) -> None:
    value = "a1b2c3d4e5f6" + "".join(random.Random(seed).choices(alphabet, k=length))
    assert value not in redact(f"first\n{line.format(value)}\nlast")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('password = "hunter2!"', "hunter2!"),
        ("'passwd': 'p4ss w0rd'", None),  # no passwords with blanks: those are messages
        ("DB_PASSWORD=s3cr3tPass  # old", "s3cr3tPass"),
        ("password: 'hunter2'", "hunter2"),
        ("PGPASSWORD=Zx9!kkw2 psql -h db", "Zx9!kkw2"),
        ("aws_secret_access_key: wJalrXUtnFEMI/K7MDENG/bPxRfiCY", None),  # too short for one
        ("aws_secret_access_key: wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ('"auth": "dXNlcjpwYXNzd29yZDEyMzQ1Njc4"', "dXNlcjpwYXNzd29yZDEyMzQ1Njc4"),
        ("password: Tr0ub4dor&3", "Tr0ub4dor&3"),
        ("SECRET_KEY = 'k2#@_q=1$-_n7#zax6%46fu)x=3&^lz&b'", "k2#@_q=1$-_n7#zax6%46fu)x=3&^lz&b"),
        ("postgres://app:hunter22@db.internal/x", "hunter22"),
        ("amqp://me:a%20b@host", "a%20b"),
    ],
)  # fmt: skip
def test_passwords_are_found_behind_their_names_and_in_addresses(line: str, value: str | None) -> None:
    found = [line[span.start : span.end] for span in secrets_in(line)]
    assert found == ([] if value is None else [value])


@pytest.mark.parametrize(
    "line",
    [
        "password = get_password(user)",
        "password = form.password1.data",
        'password_field = "new-password"',
        '"password": "Passwort2",',
        "DATABASE_URL=postgres://user:${DB_PASSWORD}@host",
        'f"http://{self.user}:{self.password}@{host}"',
        "token = tokenizer.decode(ids[0:16])",
        "self.token2wav = Qwen2_5OmniToken2WavModel(config)",
        "sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
        ".sk-fading-circle .sk-circle-12 { transform: rotate(30deg) }",
        "if '-----BEGIN PRIVATE KEY-----' in text: return",
        'token = "<your-token-here-1234567890>"',
        "secrets.token_hex(16)",
    ],
)
def test_code_that_only_speaks_of_secrets_is_left_alone(line: str) -> None:
    assert redact(line) == line


def test_the_standard_library_has_next_to_none() -> None:
    """The bench prints the rate over all of it; here a part, of which every finding would be a false one."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts = ("asyncio", "json", "http", "email", "logging", "xml", "urllib", "concurrent", "importlib", "unittest")
    files = [file for part in parts for file in (folder / part).rglob("*.py")] + [folder / "secrets.py"]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    assert sum(map(len, texts)) > 1_000_000
    assert [text[span.start : span.end] for text in texts for span in secrets_in(text)] == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_private_keys_lose_their_body_and_keep_their_lines(end: str) -> None:
    text = f"before{end}{PRIVATE_KEY.replace(chr(10), end)}after{end}"
    redacted = redact(text)
    assert redacted.splitlines()[:2] == ["before", "-----BEGIN RSA PRIVATE KEY-----"]
    assert redacted.splitlines()[-2:] == ["-----END RSA PRIVATE KEY-----", "after"]
    assert set("".join(redacted.splitlines()[2:-2])) == {"*"}


@given(st.integers(0, len(PRIVATE_KEY)), st.integers(0, len(PRIVATE_KEY)))
@settings(max_examples=100, deadline=None)
def test_a_key_cut_anywhere_is_found_as_long_as_one_of_its_ends_is_there(start: int, end: int) -> None:
    cut = PRIVATE_KEY[start:end]
    has_begin, has_end = "BEGIN RSA PRIVATE KEY-----" in cut and start < 1, "-----END RSA PRIVATE KEY-----" in cut
    if has_begin or has_end:
        assert re.search(f"[{_MIXED}]{{33}}", redact(cut)) is None


def test_a_key_in_one_string_literal_is_found() -> None:
    text = 'key = "' + PRIVATE_KEY.replace("\n", "\\n") + '"'
    assert _MIXED[:16] not in redact(text)


_fragments = st.lists(
    st.one_of(
        st.sampled_from(
            [*TOKENS.values(), PRIVATE_KEY, "password=", 'password="p4ss!"', "://a:b1c2d3@", '"', "'", "="]
        ),
        st.sampled_from(["\n", "\r\n", "\r", "\t", "\u2028", "\x0b", " ", "é", "日本", "\ud800", "token: ", "secret"]),
        st.text(max_size=20),
    ),
    max_size=20,
)


@given(_fragments)
@example(
    ["token: ", "AKIAQ3EGRIV5T7XCAPLM", ":0000", "\x80" * 4, "\U00010000" * 6, "AKIAQ3EGRIV5T7XCAPLM", "secret", "\x80"]
)
@settings(max_examples=300, deadline=None)
def test_redaction_moves_nothing_and_is_done_once(fragments: list[str]) -> None:
    text = "".join(fragments)
    spans, redacted = secrets_in(text), redact(text)
    assert len(redacted) == len(text)
    assert [len(line) for line in redacted.splitlines()] == [len(line) for line in text.splitlines()]
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))
    changed = {place for place, (old, new) in enumerate(zip(text, redacted, strict=True)) if old != new}
    assert changed <= {place for span in spans for place in range(span.start, span.end)}


@given(st.sampled_from(sorted(TOKENS.values())), st.text(max_size=200), st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_a_planted_token_is_found_in_any_text(token: str, before: str, after: str) -> None:
    redacted = redact(f"{before}\n{token}\n{after}")
    assert token[8:] not in redacted[len(before) : len(before) + len(token) + 2]


@pytest.mark.parametrize(
    "unit",
    ["a1", "ab12cd34ef56gh78 ", 'token="ab12cd34ef56gh78 ', "password=", 'password="a', "://a:b", "eyJa1234567890ab.",
     "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "AKIA1", "/", "é"],
)  # fmt: skip
def test_a_line_of_a_megabyte_is_read_like_any_other(unit: str) -> None:
    """Nothing here grows with the square of a line's length; the test's time limit would tell."""
    line = unit * (1_000_000 // len(unit))
    spans = secrets_in(line)
    assert all(isinstance(span, Span) for span in spans)
    assert len(redact(line)) == len(line)
