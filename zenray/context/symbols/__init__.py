"""What source files define, import and name."""

from zenray.context.symbols.extract import extract
from zenray.context.symbols.identifiers import identifiers_near
from zenray.context.symbols.model import NO_SYMBOLS, FileSymbols, Import, Symbol, SymbolKind

__all__ = ["NO_SYMBOLS", "FileSymbols", "Import", "Symbol", "SymbolKind", "extract", "identifiers_near"]
