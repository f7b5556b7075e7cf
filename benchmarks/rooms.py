"""Which room or library a sample of a client's processor time belongs to, and which thread and function.

A sample belongs to the innermost frame that a known room has: what the standard library does for it (`json`, `re`,
`pathlib`) is the room's own. Only three things are told apart that a function calls in C, by the line that calls them:
system calls, SQLite and hashes.
"""

import ast
import functools
import linecache
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import springest_async
from benchmarks.sampling import Frame, Stack

__all__ = [
    "DISK",
    "FILES",
    "HASHES",
    "JOURNAL_THREAD",
    "LOOP",
    "OTHER",
    "OWN",
    "ROOMS",
    "SOCKETS",
    "SQLITE",
    "THREADS",
    "function_of",
    "room_of",
    "shares",
    "thread_of",
]

LOOP, JOURNAL_THREAD, FILES = "event loop", "journal", "files"
THREADS = (LOOP, JOURNAL_THREAD, FILES)

SOCKETS = "system calls on sockets: send, recv, epoll"
DISK = "system calls on files: open, stat, read, lock"
SQLITE = "SQLite, its flushes included"
HASHES = "hashes: SHA-256, BLAKE2"
OTHER = "other"
OWN = "our `client.py`, `upload.py`"

_OURS = (
    ("http/", "our `http/`"),
    ("limits/", "our `limits/`"),
    ("journal/", "our `journal/`"),
    ("bulk/", "our `bulk/`"),
    ("manifest/", "our `manifest/`"),
    ("source_file.py", "our `source_file.py`"),
    (("api/", "records.py", "errors.py"), "our `api/`, `records.py`"),
    ("", OWN),
)
_LIBRARIES = {
    **dict.fromkeys(("aiohttp", "aiosignal", "frozenlist", "multidict", "propcache", "yarl"), "aiohttp"),
    "aiolimiter": "aiolimiter",
}
_ASYNCIO = ("asyncio/", "concurrent/", "selectors.py", "threading.py")

ROOMS = (
    *(name for _, name in _OURS[-1:] + _OURS[:-1]),
    *dict.fromkeys(_LIBRARIES.values()),
    "asyncio",
    SOCKETS,
    DISK,
    SQLITE,
    HASHES,
    OTHER,
)
"""All names that `room_of` returns."""

_PACKAGE = Path(springest_async.__file__).parent
_STANDARD = Path(sysconfig.get_path("stdlib"))
_BENCHMARKS = Path(__file__).parent
_GENERATED = re.compile(r"<attrs generated methods (?P<module>[\w.]+)\.(?P<name>\w+)>")

# What a line calls in C. Methods with such names are something else elsewhere, so the room decides where they are.
_CALLS = (
    (
        re.compile(r"\.(send|sendmsg|recv|recv_into|getsockopt|ioctl|poll|select)\("),
        SOCKETS,
        ("asyncio", "our `http/`"),
    ),
    (re.compile(r"\.(execute|executemany|fetchall)\("), SQLITE, ("our `journal/`",)),
    (re.compile(r"hashlib\.(sha256|blake2b|file_digest)\("), HASHES, ROOMS),
    (re.compile(r"\b(os|fcntl)\.[a-z_]*(open|close|stat|read|readlink|flock|mkdir)\b"), DISK, ROOMS),
    (re.compile(r"\bFileIO\(|stream\.(read|seek|close)\("), DISK, ROOMS),
)


def short(file: str) -> str:
    """Return where a file lies in its package, or in the standard library."""
    if (found := _GENERATED.fullmatch(file)) is not None:
        return found["module"].replace(".", "/") + ".py"
    path = Path(file)
    for folder in (_PACKAGE.parent, _BENCHMARKS.parent):
        if path.is_relative_to(folder) and "site-packages" not in path.relative_to(folder).parts:
            return path.relative_to(folder).as_posix()
    if "site-packages" in path.parts:
        return "/".join(path.parts[path.parts.index("site-packages") + 1 :])
    return path.relative_to(_STANDARD).as_posix() if path.is_relative_to(_STANDARD) else file


def _home(frame: Frame) -> str | None:
    """Return the room that a function is in; None: it serves whoever calls it."""
    file = short(frame.file)
    package, _, rest = file.partition("/")
    if package == _PACKAGE.name:
        return next(name for beginning, name in _OURS if rest.startswith(beginning))
    if package in _LIBRARIES:
        return _LIBRARIES[package]
    return "asyncio" if file.startswith(_ASYNCIO) else None


def room_of(stack: Stack) -> str:
    """Return the room that a sample belongs to."""
    room = next(filter(None, map(_home, stack)), OTHER)
    line = linecache.getline(stack[0].file, stack[0].line)
    return next((kind for call, kind, rooms in _CALLS if room in rooms and call.search(line)), room)


def thread_of(stack: Stack) -> str:
    """Return the thread that a sample was taken in."""
    files = [short(frame.file) for frame in stack]
    if files[-1] != "threading.py":  # which begins every thread but the first
        return LOOP
    return FILES if "concurrent/futures/thread.py" in files else JOURNAL_THREAD


def function_of(stack: Stack) -> str:
    """Return the innermost function of a sample, with its class, and its file."""
    frame = stack[0]
    generated = _GENERATED.fullmatch(frame.file)
    if generated:
        name = f"{generated['name']}.{frame.function}"
    else:
        around = [name for lines, name in _functions(frame.file) if frame.line in lines]
        name = around[-1] if around else frame.function
    return f"`{name}`, {short(frame.file)}"


@functools.cache
def _functions(file: str) -> list[tuple[range, str]]:
    """Return the lines and the name of each function of a file, inner ones behind those around them."""

    def within(node: ast.AST, name: str) -> Iterator[tuple[range, str]]:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
                if not isinstance(child, ast.ClassDef):
                    yield range(child.lineno, (child.end_lineno or child.lineno) + 1), inner
            yield from within(child, inner)

    try:
        return list(within(ast.parse("".join(linecache.getlines(file))), ""))
    except SyntaxError:
        return []


def shares(stacks: Sequence[Stack], key: Callable[[Stack], str], of: Iterable[Stack] | None = None) -> Counter[str]:
    """Return the share of all samples, in percent, by key; with `of`, only these samples are looked at."""
    counted = Counter(map(key, stacks if of is None else of))
    return Counter({name: number / len(stacks) * 100 for name, number in counted.items()})
