"""A job's report as one HTML page that needs nothing else: no script, no network, light and dark."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --paper: light-dark(#fff, #16181c); --ink: light-dark(#202124, #e8eaed);
  --quiet: light-dark(#5f6368, #9aa0a6); --line: light-dark(#e3e5e8, #33363c); --code: light-dark(#f6f7f9, #1f2227);
  --link: light-dark(#0b5cad, #7cb8f0); }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem }
p { max-width: 46rem } .quiet { color: var(--quiet) } a { color: var(--link) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.4rem, 1fr)); gap: .9rem; margin: 1.6rem 0 }
.tile { border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem }
.tile b { display: block; font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums }
.tile span { color: var(--quiet); font-size: .85rem }
img { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 10px }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem 1.1rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th { color: var(--quiet); font-weight: 500 } th:first-child, td:first-child { text-align: left }
details { border: 1px solid var(--line); border-radius: 10px; margin: .6rem 0; padding: .2rem 1rem }
summary { cursor: pointer; padding: .45rem 0 } summary code { font-size: .95rem }
pre { background: var(--code); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font: 13px/1.5 ui-monospace, monospace }
h3 { font-size: .9rem; color: var(--quiet); font-weight: 600; margin: .9rem 0 .3rem }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of parts that are HTML."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def origin(job: Mapping[str, Any]) -> str:
    """What job.json says of model, inputs and seed, in a line each."""
    model = job["model"]
    asked = f"{model['name']}, {model['weight_format']}, SHA-256 {model['sha256'][:16]}…" if model else "no model"
    inputs = ", ".join(" ".join(filter(None, (each["name"], each["revision"][:12]))) for each in job["inputs"])
    return f"Model: {escape(asked)}<br>Inputs: {escape(inputs)}<br>Seed {job['seed']}, job version {job['job_version']}"


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """Numbers in large with what they are below."""
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in values)
    return f'<div class="tiles">{shown}</div>'


def picture(light_png: bytes, dark_png: bytes, description: str) -> str:
    light, dark = (f"data:image/png;base64,{b64encode(png).decode()}" for png in (light_png, dark_png))
    return (
        f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{escape(description)}"></picture>'
    )


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The first column holds names, the others numbers."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
