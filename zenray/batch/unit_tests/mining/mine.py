"""Functions worth testing, out of documents: each with the module in which it runs alone, or why it was left out."""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.rows import row_id
from zenray.batch.unit_tests.mining.dedup import Shingles, exact_key, near_duplicates, normalised_source, shingles_of
from zenray.batch.unit_tests.mining.describe import class_context, imports_in, signature_of, source_of
from zenray.batch.unit_tests.mining.module_map import ModuleMap, Piece, UnreadableModule, functions_of, parse_module
from zenray.batch.unit_tests.mining.module_names import DEFINITIONS, Definition
from zenray.batch.unit_tests.mining.module_slice import CannotStandAlone, SliceLimits, slice_module
from zenray.batch.unit_tests.mining.module_text import module_text
from zenray.batch.unit_tests.mining.retrieval import TestLibrary, Wanted, existing_tests, wanted
from zenray.batch.unit_tests.mining.skip_effects import effects_of
from zenray.batch.unit_tests.mining.skip_rules import is_test_path, skip_by_body, skip_by_place
from zenray.batch.unit_tests.model import MinedFunction, Provenance, Skipped, SkipReason


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """What is worth mining."""

    max_function_lines: int = 60
    slice_limits: SliceLimits = field(default_factory=SliceLimits)


@dataclass(frozen=True, slots=True)
class Mined:
    """Functions in the order of their repositories, paths and lines. Every function seen is in one of the two."""

    functions: tuple[MinedFunction, ...]
    skipped: tuple[Skipped, ...]

    @property
    def funnel(self) -> dict[str, int]:
        """Functions seen, left out by reason, and kept."""
        reasons = Counter(each.reason.value for each in self.skipped)
        return {
            "seen": len(self.functions) + len(self.skipped),
            **dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            "kept": len(self.functions),
        }


_MOST_FUNCTIONS = 2000
"""Of a module; those with more are generated."""


@dataclass(frozen=True, slots=True)
class _Found:
    function: MinedFunction
    wanted: Wanted
    key: bytes
    shingles: Shingles


def mine_functions(documents: Iterable[SourceDocument], settings: MiningSettings | None = None) -> Mined:
    """Every function of the Python documents, judged. Nothing of them is run."""
    settings = settings or MiningSettings()
    found: list[_Found] = []
    skipped: list[Skipped] = []
    library = TestLibrary()
    for document in documents:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About the code that is read; they are its authors'.
            for each in _mine_document(document, settings, library):
                if isinstance(each, Skipped):
                    skipped.append(each)
                else:
                    found.append(each)
    found.sort(key=lambda each: _place(each.function.provenance))
    kept, duplicates = _without_duplicates(found)
    functions = tuple(_with_similar_tests(each, library) for each in kept)
    return Mined(functions, tuple(skipped + duplicates))


def _with_similar_tests(found: _Found, library: TestLibrary) -> MinedFunction:
    function = found.function
    return replace(function, similar_tests=library.similar_tests(function.provenance.repository, found.wanted))


def _place(provenance: Provenance) -> tuple[str, str, str, int]:
    return provenance.repository, provenance.revision, provenance.path, provenance.start_line


def _without_duplicates(found: list[_Found]) -> tuple[list[_Found], list[Skipped]]:
    first: dict[bytes, _Found] = {}
    skipped = []
    for each in found:
        earlier = first.setdefault(each.key, each)
        if earlier is not each:
            skipped.append(_skip_duplicate(each, earlier, SkipReason.DUPLICATE))
    unique = list(first.values())
    near = near_duplicates([each.shingles for each in unique])
    skipped += [_skip_duplicate(unique[at], unique[of], SkipReason.NEAR_DUPLICATE) for at, of in near.items()]
    return [each for at, each in enumerate(unique) if at not in near], skipped


def _skip_duplicate(each: _Found, earlier: _Found, reason: SkipReason) -> Skipped:
    function, other = each.function, earlier.function
    detail = f"of {other.qualified_name} in {other.provenance.repository}/{other.provenance.path}"
    return Skipped(function.qualified_name, function.provenance.repository, function.provenance.path, reason, detail)


def _mine_document(
    document: SourceDocument, settings: MiningSettings, library: TestLibrary
) -> Iterator[_Found | Skipped]:
    try:
        module = parse_module(document.path, document.text)
        functions = list(functions_of(module.tree))
    except UnreadableModule as error:
        yield Skipped("", document.repository, document.path, SkipReason.NO_SOURCE, str(error))
        return
    is_test = is_test_path(document.path)
    if is_test:
        library.add(document.repository, existing_tests(module))
    for node, around in functions:
        name = ".".join([*(each.name for each in around if isinstance(each, (*DEFINITIONS, ast.ClassDef))), node.name])
        try:
            if is_test:
                raise CannotStandAlone("in a file of tests", SkipReason.TEST_CODE)
            if len(functions) > _MOST_FUNCTIONS:
                raise CannotStandAlone(f"in a module of {len(functions)} functions", SkipReason.TOO_LONG)
            yield _mine_function(document, module, node, around, name, settings)
        except CannotStandAlone as refused:
            yield Skipped(name, document.repository, document.path, refused.reason, refused.detail)
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:  # Code that only a compiler can bear.
            yield Skipped(
                name, document.repository, document.path, SkipReason.NO_SOURCE, f"{type(error).__name__}: {error}"
            )


def _mine_function(
    document: SourceDocument,
    module: ModuleMap,
    node: Definition,
    around: tuple[ast.AST, ...],
    name: str,
    settings: MiningSettings,
) -> _Found:
    assert node.end_lineno is not None
    start_line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    num_lines = node.end_lineno - start_line + 1
    refused = skip_by_place(node, around) or skip_by_body(node, num_lines, settings.max_function_lines)
    if refused is not None:
        raise CannotStandAlone(refused[1], refused[0])
    statement = around[0] if around else node
    focal = module.by_node[statement]
    member = _member(module, focal, node) if around else None
    _refuse_effects(module, [member or focal], "")
    kept = slice_module(module, focal, member, settings.slice_limits)
    _refuse_effects(module, kept.running_pieces(), "needs code that uses ")
    text = module_text(kept)
    ast.parse(text)
    import_name = focal.node.name if isinstance(focal.node, ast.ClassDef) else node.name
    provenance = Provenance(
        document.repository, document.revision, document.path, start_line, node.end_lineno, document.licence_file
    )
    function = MinedFunction(
        row_id=row_id("function", name, text),
        qualified_name=name,
        import_name=import_name,
        call_name=name,
        signature=signature_of(node),
        docstring=ast.get_docstring(node) or "",
        source=source_of(member or focal, module),
        module_source=text,
        imports=imports_in(text),
        class_context=class_context(kept, focal) if member is not None else "",
        provenance=provenance,
    )
    normalised = normalised_source(node)
    owner = focal.node.name if isinstance(focal.node, ast.ClassDef) else ""
    return _Found(function, wanted(node, owner, document.path), exact_key(normalised), shingles_of(normalised))


def _member(module: ModuleMap, focal: Piece, node: Definition) -> Piece:
    pieces = module.class_pieces(focal)
    member = pieces.by_node[node]
    of_same_name = [piece for piece in pieces.members_by_name[node.name] if isinstance(piece.node, DEFINITIONS)]
    if pieces.is_abstract:
        raise CannotStandAlone("of an abstract class")
    if of_same_name[-1] is not member and not any(_decorators(each) for each in of_same_name):
        raise CannotStandAlone(f"{node.name} is bound more than once")
    return member


def _decorators(piece: Piece) -> list[ast.expr]:
    return piece.node.decorator_list if isinstance(piece.node, DEFINITIONS) else []


def _refuse_effects(module: ModuleMap, pieces: Iterable[Piece], prefix: str) -> None:
    for piece in pieces:
        if isinstance(piece.node, DEFINITIONS) and piece.node.name in ("__hash__", "__repr__"):
            continue  # Kept for what may need it; their effects are seldom seen.
        known = module.first_effects
        if piece not in known:
            known[piece] = next(effects_of(piece, module), None)
        effect = known[piece]
        if effect is not None:
            reason, what = effect
            raise CannotStandAlone(f"{prefix or 'uses '}{what}", reason)
