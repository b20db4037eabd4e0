"""Languages whose files can refer to each other's symbols."""

from __future__ import annotations

from zenray.context.languages.registry import language
from zenray.context.languages.table import LANGUAGES

_FAMILIES = {
    "javascript": "javascript javascriptreact typescript typescriptreact vue svelte astro",
    "c": "c cpp objective-c objective-cpp cuda-cpp",
    "jvm": "java kotlin scala groovy",
    "python": "python cython",
}
_FAMILY_OF = {member: name for name, members in _FAMILIES.items() for member in members.split()}


def family_of(language_id: str) -> str:
    """The family of a language; a language that stands alone is its own."""
    known = language(language_id)
    found = known.id if known else language_id
    return _FAMILY_OF.get(found, found)


_EXTENSIONS: dict[str, list[str]] = {}
for _language in LANGUAGES:
    _EXTENSIONS.setdefault(family_of(_language.id), []).extend(_language.extensions)


def extensions_of(family: str) -> tuple[str, ...]:
    """The extensions of its files, without the dot, the usual ones first."""
    return tuple(_EXTENSIONS.get(family, ()))
