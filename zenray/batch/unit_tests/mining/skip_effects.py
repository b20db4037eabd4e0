"""What code does besides computing: it reads or writes the world, or is not the same twice.

Known by the names of what it calls. A list of names is neither sound nor complete; the tests are run several times
under different hash seeds later, so what slips through is found there. The list saves the work.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from zenray.batch.unit_tests.mining.module_map import BUILTIN_NAMES, ModuleMap, Piece, origins_of
from zenray.batch.unit_tests.mining.module_names import Definition
from zenray.batch.unit_tests.model import SkipReason

_IO, _CHANCE = SkipReason.INPUT_OUTPUT, SkipReason.NONDETERMINISTIC

_INPUT_OUTPUT = """
builtins.open builtins.input builtins.print builtins.breakpoint builtins.exit builtins.quit builtins.help io.open
io.open_code io.FileIO codecs.open tokenize.open gzip.open bz2.open lzma.open os sys aifc asyncio asyncore asynchat
audioop bdb cProfile cgi cgitb cmd code codeop compileall crypt ctypes curses dbm dis doctest ensurepip faulthandler
fcntl fileinput filecmp ftplib getpass gettext glob grp http.client http.server imaplib imghdr importlib inspect
lib2to3 linecache logging.config logging.handlers mailbox mailcap mimetypes mmap modulefinder msilib msvcrt
multiprocessing netrc nis nntplib nt ossaudiodev pathlib.Path pathlib.PosixPath pdb pipes pkgutil platform poplib
posix profile pstats pty pwd py_compile pydoc readline resource rlcompleter runpy select selectors shelve shutil
signal site smtpd smtplib sndhdr socket socketserver spwd sqlite3 ssl subprocess sunau symtable sysconfig syslog
tarfile telnetlib tempfile termios tkinter trace tracemalloc tty turtle turtledemo unittest urllib.request
urllib.robotparser venv wave webbrowser winreg winsound wsgiref xdrlib xmlrpc zipapp zipfile zipimport zoneinfo
os.path.abspath os.path.exists os.path.expanduser os.path.expandvars os.path.getatime os.path.getctime
os.path.getmtime os.path.getsize os.path.isdir os.path.isfile os.path.islink os.path.ismount os.path.lexists
os.path.realpath os.path.relpath os.path.samefile os.path.sameopenfile os.path.samestat
"""
_NONDETERMINISTIC = """
builtins.id builtins.hash builtins.globals builtins.locals builtins.vars _random _thread _weakref contextvars gc
locale random secrets sched sys._getframe sys.getrefcount threading time uuid concurrent.futures os.urandom os.getpid
os.times traceback weakref queue datetime.date.today datetime.datetime.now datetime.datetime.today
datetime.datetime.utcnow datetime.datetime.fromtimestamp datetime.date.fromtimestamp datetime.datetime.timestamp
"""
_HARMLESS = """
os.path os.sep os.altsep os.pathsep os.curdir os.pardir os.extsep os.linesep os.name os.devnull os.fspath os.PathLike
os.fsencode os.fsdecode os.error os.SEEK_SET os.SEEK_CUR os.SEEK_END sys.maxsize sys.maxunicode sys.byteorder
sys.version_info sys.hexversion sys.float_info sys.int_info sys.hash_info sys.intern sys.getrecursionlimit
sys.exc_info sys.getdefaultencoding sys.version sys.implementation sys.platform sys.getfilesystemencoding
sys.getfilesystemencodeerrors sys.flags sys.float_repr_style sys.getsizeof time.struct_time time.gmtime time.strptime
time.strftime threading.Lock threading.RLock _thread.RLock _thread.allocate_lock weakref.WeakKeyDictionary
weakref.WeakValueDictionary contextvars.ContextVar inspect.cleandoc inspect.isclass inspect.isfunction
inspect.ismethod inspect.isbuiltin inspect.isgenerator inspect.isgeneratorfunction inspect.signature inspect.Signature
inspect.Parameter inspect.iscoroutinefunction inspect.isroutine inspect.getmro inspect.unwrap inspect.ismodule
inspect.isdatadescriptor inspect.getfullargspec tracemalloc.Trace unittest.mock.sentinel zipfile.BadZipFile
tarfile.TarError importlib.metadata.PackageNotFoundError
"""

_EFFECTS: Mapping[str, SkipReason | None] = {
    **dict.fromkeys(_INPUT_OUTPUT.split(), _IO),
    **dict.fromkeys(_NONDETERMINISTIC.split(), _CHANCE),
    **dict.fromkeys(_HARMLESS.split()),
}


def effects_of(piece: Piece, module: ModuleMap) -> Iterator[tuple[SkipReason, str]]:
    """Why a statement of a module is no pure computation, each with the name that says so."""
    node, of_module = piece.node, piece.names.outer | piece.names.inner
    local = _local_imports(node)
    inner: set[int] = set()
    for each in ast.walk(node):
        if id(each) in inner or not isinstance(each, ast.Name | ast.Attribute):
            continue
        parts: list[str] = []
        root: ast.expr = each
        while isinstance(root, ast.Attribute):
            parts.append(root.attr)
            inner.add(id(root.value))
            root = root.value
        if not isinstance(root, ast.Name) or not isinstance(root.ctx, ast.Load):
            continue
        origin = local.get(root.id)
        if origin is None and root.id in of_module:
            origin = module.origins.get(root.id)
            if origin is None and root.id in BUILTIN_NAMES and root.id not in module.by_name:
                origin = f"builtins.{root.id}"
        if origin is not None:
            dotted = ".".join((origin, *reversed(parts)))
            reason = _effect(dotted)
            if reason is not None:
                yield reason, dotted.removeprefix("builtins.")


def _effect(dotted: str) -> SkipReason | None:
    """Of the longest known beginning of a dotted name."""
    known = dotted
    while known:
        if known in _EFFECTS:
            return _EFFECTS[known]
        known = known.rpartition(".")[0]
    return None


def _local_imports(node: ast.stmt) -> dict[str, str]:
    imports: list[ast.stmt] = [each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom)]
    return origins_of(imports)


def parameters_of(node: Definition) -> list[str]:
    """The names of all parameters, in order."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [each.arg for each in (*named, arguments.vararg, arguments.kwarg) if each is not None]
