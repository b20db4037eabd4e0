"""Where the files of an imported module may lie, language by language. Pure: names in, guesses out, the best first."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from zenray.context.index.families import extensions_of


@dataclass(frozen=True, slots=True)
class Guess:
    """Places of which any that exist are meant, the first best. `file` and `folder` are paths from the root of the
    tree; `file_end` and `folder_end` are their last parts, wherever the beginning may lie."""

    kind: Literal["file", "folder", "file_end", "folder_end"]
    paths: tuple[str, ...]


def guesses(module: str, importer_path: str, family: str) -> list[Guess]:
    """Where to look for what the file `importer_path` imports as `module`, until something is found."""
    name = module.strip().strip("\"'<>`")
    if not name or len(name) > 512 or "\0" in name:
        return []
    resolve = _RESOLVERS.get(family, _by_path)
    found = resolve(name, posixpath.dirname(importer_path), extensions_of(family))
    return [guess for guess in found if guess.paths]


def _python(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    level = len(name) - len(name.lstrip("."))
    parts = [part for part in name[level:].split(".") if part]
    if level:
        base = _above(folder, level - 1)
        return [Guess("file", _python_files(posixpath.join(base, *parts)))] if base is not None else []
    tries = [parts, parts[:-1]] if len(parts) > 1 else [parts]
    found = [
        Guess(
            "file", tuple(file for above in _ancestors(folder) for file in _python_files(posixpath.join(above, *each)))
        )
        for each in tries
    ]
    found += [Guess("file", _python_files(posixpath.join("src", *parts)))]
    # A single name is more often one of the standard library than a file somewhere in the tree.
    return found + [Guess("file_end", _python_files("/".join(each))) for each in tries if len(each) > 1]


def _python_files(path: str) -> tuple[str, ...]:
    return (f"{path}.py", f"{path}/__init__.py", f"{path}.pyi", f"{path}/__init__.pyi")


def _javascript(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    if name.startswith("."):
        path = _joined(folder, name)
        return [Guess("file", _javascript_files(path, extensions))] if path is not None else []
    bare = name.removeprefix("@/").removeprefix("~/").removeprefix("#/").lstrip("/")
    paths = [bare, f"src/{bare}"]
    found = [Guess("file", tuple(file for path in paths for file in _javascript_files(path, extensions)))]
    if "/" in bare:
        found.append(Guess("file_end", _javascript_files(bare, extensions)))
    package = bare.rpartition("/")[2] if name.startswith("@") else bare
    return [*found, Guess("file_end", (f"{package}/src/index.ts", f"{package}/index.ts", f"{package}/index.js"))]


def _javascript_files(path: str, extensions: Sequence[str]) -> tuple[str, ...]:
    stem = path.removesuffix(".js").removesuffix(".jsx").removesuffix(".mjs")
    stems = [path, stem] if stem != path else [path]
    known = ("ts", "tsx", "d.ts", "js", "jsx", "mts", "mjs", "cts", "cjs", "vue", "svelte")
    files = [f"{each}.{extension}" for each in stems for extension in known]
    own = [path] if path.rpartition(".")[2] in extensions else []
    return (*own, *files, *(f"{path}/index.{extension}" for extension in known))


def _go(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    parts = name.split("/")
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    # A last part alone is a folder at the top or nothing: `errors` lies in many trees.
    return [Guess("folder_end" if "/" in end else "folder", (end,)) for end in ends]


def _dotted(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    parts = [part for part in name.split(".") if part]
    is_wildcard = bool(parts) and parts[-1] in ("*", "_")
    parts = [part for part in parts if part not in ("*", "_")]
    path, holder = "/".join(parts), "/".join(parts[:-1])
    found = [] if is_wildcard else [Guess("file_end", _with_extensions(path, extensions))]
    found.append(Guess("folder_end", (path,) if len(parts) > 1 else ()))
    return [*found, Guess("file_end", _with_extensions(holder, extensions) if len(parts) > 2 else ())]


def _rust(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    parts = [part for part in name.removesuffix(";").split("::") if part and part not in ("*", "self")]
    above: str | None = folder
    if name.startswith(("self::", "super::")):
        while parts and parts[0] == "super":
            parts, above = parts[1:], above if above is None else posixpath.dirname(above)
        bases = [] if above is None else [above, folder]
    elif parts and parts[0] == "crate":
        parts = parts[1:]
        source = f"/{folder}/".rfind("/src/")
        bases = [f"/{folder}/"[1 : source + 4]] if source >= 0 else [folder]
    elif len(parts) < 2:
        bases = [folder]
    else:
        crate, *rest = parts
        places = [f"{each}/src" for each in dict.fromkeys((crate, crate.replace("_", "-")))]
        ends = [end for place in places for end in _rust_files(place, rest)] + [f"{place}/lib.rs" for place in places]
        return [Guess("file", tuple(_rust_files(folder, parts))), Guess("file_end", tuple(ends))]
    return [Guess("file", tuple(file for base in bases for file in _rust_files(base, parts)))]


def _rust_files(base: str, parts: Sequence[str]) -> list[str]:
    """The file of a path of modules, or of the module around its last name."""
    paths = [posixpath.join(base, *parts[:length]) for length in range(len(parts), 0, -1)]
    return [file for path in paths for file in (f"{path}.rs", f"{path}/mod.rs")]


def _include(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    path = _joined(folder, name)
    near = Guess("file", (path,) if path is not None else ())
    return [near, Guess("file_end", (name.removeprefix("./"),) if ".." not in name else ())]


def _php(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    parts = [part for part in name.split("\\") if part]
    if "\\" not in name:
        return _by_path(name, folder, extensions)
    # The first parts are a namespace that composer.json maps to some folder.
    return [Guess("file_end", (f"{'/'.join(parts[start:])}.php",)) for start in range(len(parts))]


def _by_path(name: str, folder: str, extensions: Sequence[str]) -> list[Guess]:
    """Names that are paths, with or without an extension; dots stand for slashes where there is none of those."""
    name = name.removeprefix("package:")
    path = _joined(folder, name)
    found = [Guess("file", (path, *_with_extensions(path, extensions)))] if path is not None else []
    if ".." in name:
        return found
    end = name.removeprefix("./")
    found.append(Guess("file_end", (end, *_with_extensions(end, extensions))))
    if "/" in end:  # such as package:app/models.dart, which lies in the package's lib
        found.append(Guess("file_end", (f"lib/{end.partition('/')[2]}",)))
    elif "." in end:
        found.append(Guess("file_end", _with_extensions(end.replace(".", "/"), extensions)))
    return found


def _with_extensions(path: str, extensions: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{path}.{extension}" for extension in extensions[:12])


def _joined(folder: str, relative: str) -> str | None:
    """The path that `relative` means in `folder`; None where it leads out of the tree."""
    path = posixpath.normpath(posixpath.join(folder, relative))
    return None if path.startswith(("..", "/")) or path == "." else path


def _above(folder: str, levels: int) -> str | None:
    parts = folder.split("/") if folder else []
    return "/".join(parts[: len(parts) - levels]) if levels <= len(parts) else None


def _ancestors(folder: str) -> list[str]:
    """The folder, those it lies in, and the root: each may be where modules are looked for."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


_RESOLVERS: dict[str, Callable[[str, str, Sequence[str]], list[Guess]]] = {
    "python": _python,
    "javascript": _javascript,
    "go": _go,
    "jvm": _dotted,
    "haskell": _dotted,
    "csharp": _dotted,
    "rust": _rust,
    "c": _include,
    "php": _php,
}
