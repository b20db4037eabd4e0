"""Languages by the paths of their files."""

from __future__ import annotations

from pathlib import PurePosixPath


def language_of(path: str) -> str:
    """The LSP language id a path suggests; empty when nothing is known about it."""
    name = PurePosixPath(path.replace("\\", "/")).name.lower()
    if name in _LANGUAGE_OF_NAME:
        return _LANGUAGE_OF_NAME[name]
    return _LANGUAGE_OF_SUFFIX.get(name.rpartition(".")[2], "") if "." in name else ""


_LANGUAGE_OF_NAME = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "go.mod": "go.mod",
    "jenkinsfile": "groovy",
    "rakefile": "ruby",
    "gemfile": "ruby",
    ".bashrc": "shellscript",
    ".profile": "shellscript",
}

_SUFFIXES_OF_LANGUAGE = {
    "bat": "bat cmd",
    "c": "c h",
    "clojure": "clj cljs cljc edn",
    "cmake": "cmake",
    "cpp": "cc cpp cxx c++ hh hpp hxx ipp",
    "csharp": "cs csx",
    "css": "css",
    "cuda-cpp": "cu cuh",
    "dart": "dart",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "fsharp": "fs fsi fsx",
    "go": "go",
    "groovy": "groovy gradle",
    "haskell": "hs lhs",
    "html": "html htm xhtml",
    "ini": "ini cfg properties",
    "java": "java",
    "javascript": "js cjs mjs",
    "javascriptreact": "jsx",
    "json": "json",
    "jsonc": "jsonc",
    "julia": "jl",
    "kotlin": "kt kts",
    "latex": "tex sty cls",
    "less": "less",
    "lua": "lua",
    "makefile": "mk mak",
    "markdown": "md markdown",
    "nix": "nix",
    "objective-c": "m",
    "objective-cpp": "mm",
    "ocaml": "ml mli",
    "pascal": "pas pp",
    "perl": "pl pm t",
    "php": "php phtml",
    "powershell": "ps1 psm1 psd1",
    "proto": "proto",
    "python": "py pyi pyw pyx",
    "r": "r",
    "ruby": "rb rake gemspec",
    "rust": "rs",
    "scala": "scala sc sbt",
    "scss": "scss",
    "shellscript": "sh bash zsh ksh",
    "sql": "sql",
    "starlark": "bzl star",
    "svelte": "svelte",
    "swift": "swift",
    "systemverilog": "sv svh",
    "terraform": "tf tfvars",
    "toml": "toml",
    "typescript": "ts cts mts",
    "typescriptreact": "tsx",
    "verilog": "v vh",
    "vhdl": "vhd vhdl",
    "vue": "vue",
    "xml": "xml xsd xsl xslt svg",
    "yaml": "yaml yml",
    "zig": "zig",
}

_LANGUAGE_OF_SUFFIX = {suffix: name for name, suffixes in _SUFFIXES_OF_LANGUAGE.items() for suffix in suffixes.split()}
