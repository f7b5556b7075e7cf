"""``--log-format json``: each line on stderr is one JSON object, whatever writes it.

The log takes the place of stderr, so what is printed for people becomes a message in it, as does what Python itself
says. No e-mail address gets into it. The objects are in docs/machines.md.
"""

import io
import itertools
import json
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from datetime import UTC, datetime
from typing import Any, TextIO

from springest_async.cli.exit_codes import Exit
from springest_async.cli.streams import forget, make_streams
from springest_async.reports.addresses import without_addresses


def wants_json_log(arguments: Sequence[str]) -> bool:
    """Return whether a command is to log JSON; its arguments may be wrong otherwise, and that is logged too."""
    if arguments[:1] != ["upload"]:
        return False
    return ("--log-format", "json") in itertools.pairwise(arguments) or "--log-format=json" in arguments


def json_log() -> "JsonLog | None":
    """Return the log of this process, if it logs JSON."""
    return sys.stderr if isinstance(sys.stderr, JsonLog) else None


def logged_as_json(command: Callable[[], int]) -> int:
    """Run a command with a JSON log as its stderr, whose last object has its exit code, and return that."""
    make_streams()
    log = JsonLog(sys.stderr)
    with redirect_stderr(log):
        try:
            code = command()
        except Exception:  # noqa: BLE001 # a bug, of which Python would print more than one line
            log.event("message", words=traceback.format_exc())
            code = Exit.NOT_ALL
        log.flush_line()
        log.write_end(code)
    return code


class JsonLog(io.TextIOBase):
    """A stream of JSON objects, one a line, in ASCII; what is written as text becomes the words of a message.

    Args:
        stream: where the objects go.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._line = ""
        self._lock = threading.Lock()  # other threads log too
        self._has_ended = False
        self.end: dict[str, Any] = {"manifest": None, "error": "", "stopped_by": None, "status": None, "run": None}
        """What the last object says beside the time and the exit code."""

    def write(self, text: str) -> int:
        """Write a text, whose lines become messages."""
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._message(line)
        return len(text)

    def flush_line(self) -> None:
        """Write what has no end of a line yet."""
        line, self._line = self._line, ""
        self._message(line)

    def _message(self, line: str) -> None:
        if line.strip():
            self.event("message", words=line.strip())

    def event(self, event: str, **fields: Any) -> None:
        """Write one object: what it is, when (UTC), and its fields; nothing after the ``end``.

        A reader that is gone stops nothing.
        """
        record = {"event": event, "at": datetime.now(UTC).isoformat(timespec="milliseconds")} | fields
        text = json.dumps(_scrubbed(record))
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = event == "end"
            try:
                self._stream.write(f"{text}\n")
                self._stream.flush()
            except OSError:
                forget(self._stream)

    def write_end(self, code: int) -> None:
        """Write the last object."""
        self.event(**(self.end | {"event": "end", "exit_code": int(code)}))

    def fileno(self) -> int:
        """Return the descriptor behind it."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return False: colours and bars are not for programs."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True


def _scrubbed(value: Any) -> Any:
    match value:
        case str():
            return without_addresses(value)
        case dict():
            return {name: _scrubbed(each) for name, each in value.items()}
        case list() | tuple():
            return [_scrubbed(each) for each in value]
        case _:
            return value
