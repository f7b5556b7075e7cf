"""The canary: keys that are found wherever they are shown, and a witness who looks at all that a client shows.

A key is found by its halves, which are like nothing else, so that half a key is found too, and letters in between that
look otherwise in each way of writing. The witness looks at each thing at once and keeps nothing but what he found.
"""

import asyncio
import base64
import copy
import functools
import io
import logging
import pickle
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import attrs
import rich.traceback
from multidict import MultiMapping

from springest_async import Springest

__all__ = ["CERTIFICATIONS_KEY", "KEY", "Witness", "leaks", "watching"]

KEY = "canary7Qx+/=&%é\"'<yellow4Zk"
CERTIFICATIONS_KEY = "kestrel5Vb +/=&%ü\"'>plumage8Jw"

_HALVES = ("canary7Qx", "yellow4Zk", "kestrel5Vb", "plumage8Jw")


def _forms(half: str) -> Iterator[bytes]:
    """Return a half as it is left by all escapes that leave letters alone, and as others write it; in small letters."""
    yield half.lower().encode()
    for code in ("utf-16-le", "utf-16-be"):
        yield half.lower().encode(code)
    yield half.encode().hex().encode()
    for form in ("%{:02x}", "%25{:02x}", "&#{};", "&#x{:x};", r"\u{:04x}", r"\x{:02x}"):
        yield "".join(form.format(ord(letter)) for letter in half).encode()


_IN_ANY_CASE = {form: half for half in _HALVES for form in _forms(half)}
# In base64 it depends on what is before a half, and on what is behind it: three ways, of which the ends are left out.
_IN_BASE64 = {
    base64.b64encode(bytes(before) + half.encode())[before and 4 : -4]: half for half in _HALVES for before in range(3)
}


# The hashes of texts without a key: most of what is shown is shown again and again.
_clean: set[int] = set()


def leaks(shown: str | bytes) -> list[str]:
    """Return what of the keys is in a text, with what is around it."""
    known = hash(shown)
    if known in _clean:
        return []
    data = shown.encode("utf-8", "surrogatepass") if isinstance(shown, str) else shown
    low = data.lower()
    places = [low.find(form) for form in _IN_ANY_CASE] + [data.find(form) for form in _IN_BASE64]
    found = [repr(data[max(0, place - 60) : place + 60]) for place in places if place >= 0]
    if not found:
        _clean.add(known)
    return found


class Witness:
    """Looks at all that is shown: `leaks` are the keys that were in it, `places` where was looked, and how often."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.places: Counter[str] = Counter()

    def read(self, place: str, shown: str | bytes | bytearray) -> None:
        """Look for the keys in a text."""
        self.places[place] += 1
        self.leaks += [f"{place}: {leak}" for leak in leaks(shown if isinstance(shown, str) else bytes(shown))]

    def look_at(self, place: str, thing: object) -> None:
        """Look at a thing of ours or of aiohttp's, and at all that it is made of."""
        seen: set[int] = set()
        waiting = [(place, thing)]
        while waiting:
            where, part = waiting.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            if isinstance(part, str | bytes | bytearray):
                self.read(where, part)
            else:
                # What the server said of the request is not ours to hide in a response (SECURITY.md says so).
                if not isinstance(part, aiohttp.ClientResponse):
                    self.read(where, repr(part))
                    self.read(where, str(part))
                waiting += [(f"{where}.{name}", value) for name, value in _parts(part)]

    def look_at_error(self, place: str, error: BaseException) -> None:
        """Look at an error, at all that hangs on it, and at what is printed of them, with the frames' variables."""
        for member in _family(error):
            told = [member.args, vars(member), getattr(member, "__notes__", ())]
            for thing in (str(member), repr(member), *map(repr, told), *traceback.format_exception(member)):
                self.read(f"{place}, told", thing)
            for thing in (*member.args, *vars(member).values()):
                self.look_at(f"{place}, part", thing)
            with suppress(TypeError, AttributeError, pickle.PicklingError):  # aiohttp's own hold what cannot be copied
                self.read(f"{place}, pickled", pickle.dumps(member))
                self.read(f"{place}, copied", repr(vars(copy.copy(member))))
            for frame, _ in traceback.walk_tb(member.__traceback__):
                self._look_at_frame(place, frame)
            by_rich = rich.traceback.Traceback.extract(
                type(member), member, member.__traceback__, show_locals=True, locals_max_length=1000
            )
            for seen in (frame for stack in by_rich.stacks for frame in stack.frames):
                for name, node in (seen.locals or {}).items() if _is_looked_at(seen.filename) else ():
                    self.read(f"{place}, {seen.name}: {name}, by rich", str(node))

    def look_at_frames(self, place: str, frame: FrameType | None) -> None:
        """Look at the variables of a frame, and of all that called it, up to the event loop.

        But for aiohttp's where it writes the request line, and where it has the response (SECURITY.md says so).
        """
        while frame is not None and frame.f_code.co_qualname != "Handle._run":
            writes = frame.f_code.co_qualname in ("ClientRequest.send", "StreamWriter.write_headers")
            answered = place == "on_request_end" and "springest_async" not in Path(frame.f_code.co_filename).parts
            if not writes and not answered:
                self._look_at_frame(place, frame)
            frame = frame.f_back

    def _look_at_frame(self, place: str, frame: FrameType | None) -> None:
        if frame is not None and _is_looked_at(frame.f_code.co_filename):
            for name, value in frame.f_locals.items():
                with suppress(AttributeError):  # the repr of what its __init__ could not make
                    shown = value if isinstance(value, str | bytes | bytearray) else repr(value)
                    self.read(f"{place}, {frame.f_code.co_qualname}: {name}", shown)

    def look_at_tasks(self, place: str) -> None:
        """Look at the variables of all that waits now, but for what waits in the tests and their servers."""
        for task in asyncio.all_tasks():
            waiting: Any = task.get_coro()
            while (code := getattr(waiting, "cr_code", None) or getattr(waiting, "ag_code", None)) is not None:
                if not _is_looked_at(code.co_filename):
                    break
                self._look_at_frame(place, getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None))
                waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)

    def trace(self, client: Springest) -> None:
        """Look at all that aiohttp tells of an open client's session, and at the variables of who is at work then."""
        config = aiohttp.TraceConfig()
        signals = [name for name in dir(config) if name.startswith("on_")]
        for name in signals:
            getattr(config, name).append(functools.partial(self._told, name))
        config.freeze()
        for session in client._transport._sessions.values():
            session.trace_configs.append(config)

    async def _told(self, name: str, _session: aiohttp.ClientSession, _context: object, told: Any) -> None:
        await asyncio.sleep(0)  # as a trace may
        self.places[name] += 1
        for part in attrs.fields(type(told)):
            self.look_at(f"{name}.{part.name}", getattr(told, part.name))
        if isinstance(error := getattr(told, "exception", None), BaseException):
            self.look_at_error(name, error)
        self.look_at_frames(name, sys._getframe().f_back)


_OF_A_RESPONSE = ("method", "url", "real_url", "host", "request_info", "status", "version", "history")


def _is_looked_at(file: str) -> bool:
    """Return whether a frame's variables are: those of the tests and of their servers hold keys."""
    return Path(__file__).parents[1] not in Path(file).parents


def _parts(thing: object) -> Iterator[tuple[str, object]]:
    """Return what a thing is made of. What belongs to asyncio leads to all that runs, the tests' servers included."""
    match thing:
        case Mapping() | MultiMapping():
            yield from ((str(name), part) for pair in thing.items() for name, part in zip("kv", pair, strict=True))
        case list() | tuple() | set() | frozenset():
            yield from (("[]", part) for part in thing)
        case functools.partial():
            yield from (("args", part) for part in (thing.func, thing.args, thing.keywords))
        case BaseException():
            yield from ((".args", part) for part in (*thing.args, *vars(thing).values()))
        case _ if type(thing).__module__.startswith(("springest_async.", "aiohttp.")):
            # Of ours all; of aiohttp's what it offers: in its buffers there is what the server said, and the request.
            ours = type(thing).__module__.startswith("springest")
            names = _OF_A_RESPONSE if isinstance(thing, aiohttp.ClientResponse) else dir(thing)
            for name in names:
                if not name.startswith("__" if ours else "_") and name != "closed":  # which makes a future when asked
                    with warnings.catch_warnings(action="ignore"), suppress(Exception):
                        part = getattr(thing, name)
                        if not callable(part):
                            yield name, part


def _family(error: BaseException) -> list[BaseException]:
    """Return an error and all that hangs on it."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        member = waiting.pop()
        if member is not None and member not in found:
            found.append(member)
            waiting += [member.__cause__, member.__context__, *getattr(member, "exceptions", ())]
    return found


class _Reader(logging.Handler):
    def __init__(self, witness: Witness) -> None:
        super().__init__(logging.DEBUG)
        self._witness = witness

    def emit(self, record: logging.LogRecord) -> None:
        place = f"log of {record.name}"
        self._witness.read(place, self.format(record))
        for name, value in vars(record).items():
            self._witness.read(f"{place}, {name}", repr(value))
        if record.exc_info and record.exc_info[1] is not None:
            self._witness.look_at_error(place, record.exc_info[1])


@contextmanager
def watching() -> Iterator[Witness]:
    """Look at all logs, at DEBUG, and at stdout and stderr, as long as the block lasts; asyncio tells all it can."""
    witness = Witness()
    loop = asyncio.get_running_loop()
    root = logging.getLogger()
    handler = _Reader(witness)
    before, out, err = (loop.get_debug(), root.level), io.StringIO(), io.StringIO()
    loop.set_debug(True)
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield witness
    finally:
        root.removeHandler(handler)
        loop.set_debug(before[0])
        root.setLevel(before[1])
        witness.read("stdout", out.getvalue())
        witness.read("stderr", err.getvalue())
