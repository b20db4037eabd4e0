"""An input is named in one line, and named wrongly with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenray.batch.inputs.document import InputError
from zenray.batch.inputs.spec import Columns, InputKind, InputSpec
from zenray.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "location", "revision", "name"),
    [
        ("src", InputKind.FOLDER, "src", "", "src"),
        ("/data/some project/", InputKind.FOLDER, "/data/some project/", "", "some project"),
        ("c++", InputKind.FOLDER, "c++", "", "c++"),
        ("s3://bucket/code", InputKind.FOLDER, "s3://bucket/code", "", "s3://bucket/code"),
        ("rows.jsonl.gz", InputKind.JSONL, "rows.jsonl.gz", "", "rows.jsonl.gz"),
        ("parquet+s3://b/set", InputKind.PARQUET, "s3://b/set", "", "s3://b/set"),
        ("toolz-1.0.0.tar.gz", InputKind.ARCHIVE, "toolz-1.0.0.tar.gz", "", "toolz-1.0.0"),
        ("git+.", InputKind.GIT, ".", "HEAD", Path.cwd().name),
        ("git+../lib@v1.2", InputKind.GIT, "../lib", "v1.2", "lib"),
        ("git+file:///srv/lib.git@main", InputKind.GIT, "file:///srv/lib.git", "main", "lib"),
        (
            "git+https://me:key@host/a/b.git",
            InputKind.GIT,
            "https://me:key@host/a/b.git",
            "HEAD",
            "https://host/a/b.git",
        ),
        ("git+ssh://git@host/a/b@v2", InputKind.GIT, "ssh://git@host/a/b", "v2", "ssh://host/a/b"),
    ],
)
def test_a_line_names_an_input(text: str, kind: InputKind, location: str, revision: str, name: str) -> None:
    spec = InputSpec.parse(text)
    assert (spec.kind, spec.location, spec.revision, spec.display_name) == (kind, location, revision, name)


def test_options_follow_a_hash() -> None:
    spec = InputSpec.parse("data.parquet#name=stack&suffixes=.py,.pyi&text=body&subdirectory=lib")
    assert (spec.name, spec.suffixes, spec.subdirectory) == ("stack", (".py", ".pyi"), "lib")
    assert spec.columns == Columns(text=("body",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "location"),
        ("svn+https://host/a", "git"),
        ("src#colour=red", "subdirectory"),
        ("src#subdirectory=../up", "without .."),
        ("src#subdirectory=/etc", "relative"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        InputSpec.parse(text)


def test_what_goes_wrong_with_an_input_is_said_without_its_secrets() -> None:
    for location in ("git+https://user:token@host.invalid/repo.git", "https://user:token@host/a?Signature=token#x"):
        said = str(InputError(f"input {location!r}@'main' cannot be opened: pyarrow: {location}; fsspec: {location}"))
        assert "token" not in said and "host" in said and "'main' cannot be opened" in said
