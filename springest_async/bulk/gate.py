"""Decide how many certificates of a run may try at the same time: all, or one alone.

The first one goes alone until its answer, so that a wrong key costs one POST. In an outage one goes alone after a
pause: the others would only fail in the same way, or end up in doubt. Nothing is sent or recorded here.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal

from springest_async.api.verdicts import TRIES, backoff
from springest_async.bulk.events import Outage, OutageOver
from springest_async.errors import NotSent

# After so many unclear answers in a row, the server is probably down behind a gateway that still answers.
_OUTAGE = 4

# The longest pause in seconds when there is an answer but not a clear one: each try may leave a certificate in doubt.
_LONGEST_IF_UNCLEAR = 600.0


class Gate:
    """What the answers of a run say about its key, host and network, and who may try next.

    Usage::

        is_alone = not gate.is_open and await gate.wait_turn()
        try:
            ...  # send, and note the answer: `answered`, `unclear` …
        finally:
            if is_alone:
                gate.leave()

    Args:
        report: called when an outage begins, at each new try, and when it is over.
    """

    def __init__(self, report: Callable[[Outage | OutageOver], None]) -> None:
        self._report = report
        self._news = asyncio.Event()  # set, and replaced, when those that wait should look again
        self._is_stopped = False
        self._is_taken = False  # by one that goes alone
        self._is_proved = False  # whether an answer has shown that key and host are right
        self._pauses = 0  # since the network was lost
        self._lost_since: float | None = None  # on the loop's clock
        self._unclear = 0  # answers in a row
        self._unclear_since = 0.0
        self._reason = ""  # of the last failure
        self._reported: Outage | None = None
        self.was_reached = False
        """Whether the server was ever reached, in this run or by another one with the same key."""

    def __repr__(self) -> str:
        state = "open" if self.is_open else f"one at a time, {self._reason or 'the first'}"
        return f"<Gate {state}>"

    @property
    def is_open(self) -> bool:
        """Whether all may try at the same time."""
        return self._is_proved and not self.is_outage

    @property
    def is_proved(self) -> bool:
        """Whether an answer has shown that key and host are right."""
        return self._is_proved

    @property
    def is_unclear(self) -> bool:
        """Whether the last answer was."""
        return self._unclear > 0

    @property
    def is_outage(self) -> bool:
        """Whether the server seems to be away."""
        return self._lost_since is not None or self._unclear >= _OUTAGE

    # --- what came of a try ---

    def answered(self) -> None:
        """Note an answer that shows that key, host and network are right."""
        if not self.is_open or self._unclear:
            self._is_proved = self.was_reached = True
            self._unclear = 0
            self.connected()

    def connected(self) -> None:
        """Note that there is a connection, whatever the answer was."""
        self._lost_since, self._pauses = None, 0
        self._look_again()

    def unclear(self, reason: str) -> None:
        """Note a failure that the next certificate may share: the server gave no answer, or one that is not its own."""
        if not self._unclear:
            self._unclear_since = _now()
        self._unclear += 1
        self._reason = reason
        self.connected()

    def lost(self, error: NotSent) -> bool:
        """Note that no connection could be made; return False if it is not worth waiting for one.

        That is at the start, when the server was never reached.
        """
        if self._lost_since is None:  # answers that were lost a moment ago are of the same outage
            self._lost_since = self._unclear_since if self._unclear else _now()
        self._reason = error.reason.removeprefix("no connection: ")
        return self.was_reached or (error.trusted and self._pauses < TRIES - 1)

    def is_asked(self, error: NotSent, pause: float) -> None:
        """Note that there was no connection to ask Springest about a doubt, which is asked again in `pause` seconds."""
        self.lost(error)
        certificate_tries = self._reported is not None and self._is_taken
        self._report_outage(self._reported.again_at if certificate_tries and self._reported else _now() + pause)

    # --- whose turn it is ---

    async def wait_turn(self) -> bool:
        """Wait until one may try; return whether it goes alone, so that `leave` has to be called."""
        while self._is_taken and not self.is_open and not self._is_stopped:
            await self._news.wait()
        if self.is_open or self._is_stopped:
            return False
        self._is_taken = True
        try:
            if self.is_outage:
                await self._pause()
        except BaseException:
            self.leave()
            raise
        return True

    async def _pause(self) -> None:
        """Wait for the next try in an outage, unless that is over earlier."""
        if self._lost_since is not None:
            self._pauses += 1
            pause = backoff(self._pauses)
        else:
            pause = backoff(self._unclear, longest=_LONGEST_IF_UNCLEAR)
        again_at = _now() + pause
        self._report_outage(again_at)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(again_at):
                while not self._may_go_on():
                    await self._news.wait()
        if not self._may_go_on():
            self._report_outage(None)

    def _may_go_on(self) -> bool:
        return not self.is_outage or self._is_stopped

    def leave(self) -> None:
        """End a turn, so that the next one may try."""
        self._is_taken = False
        self._look_again()

    def stop(self) -> None:
        """Wake all that wait, because nothing more is sent."""
        self._is_stopped = True
        self._look_again()

    def pause(self) -> None:
        """Wake all that wait, because nothing is sent until `resume`. An outage ends: nobody sees how long it lasts."""
        self._end_outage()
        self.stop()

    def resume(self) -> None:
        """Send one alone first, as at the start: key and host may be wrong by now, or the server away."""
        self._is_stopped = self._is_proved = False
        self._unclear = 0
        self.connected()

    def close(self) -> None:
        """End an outage that lasts, because the run ends."""
        self._end_outage()

    def _look_again(self) -> None:
        if not self.is_outage:
            self._end_outage()
        news, self._news = self._news, asyncio.Event()
        news.set()

    # --- what is reported ---

    def _report_outage(self, again_at: float | None) -> None:
        what: Literal["no connection", "no clear answer"] = "no connection"
        since = self._lost_since
        if since is None:
            what, since = "no clear answer", self._unclear_since
        self._reported = Outage(since, what, self._reason, again_at)
        self._report(self._reported)

    def _end_outage(self) -> None:
        if (outage := self._reported) is not None:
            self._reported = None
            self._report(OutageOver(outage.what, outage.reason, _now() - outage.since))


def _now() -> float:
    return asyncio.get_running_loop().time()
