"""A program that reports to Sentry: it makes requests to origins, and prints all that Sentry would be sent.

``python -m tests.integration.sentry_program FILE CALL:ORIGIN...`` with CALL ``upload`` or ``list`` and the key in
SPRINGEST_API_KEY. It is a program, because Sentry's patches stay for the life of a process.
"""

import asyncio
import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sentry_sdk
import stamina
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.aiohttp import AioHttpIntegration
from sentry_sdk.scrubber import EventScrubber
from sentry_sdk.transport import Transport

from springest_async import CertificateUpload, Limiter, Settings, Springest, SpringestError, Timeouts


class _Printer(Transport):
    """Prints what is in each envelope, an item a line, instead of sending it."""

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            print(json.dumps({"type": item.type, **(item.payload.json or {})}))  # noqa: T201 (see above)

    def flush(self, timeout: float, callback: Any = None) -> None:
        """Wait for nothing: all is printed at once."""


async def _call(name: str, origin: str, file: Path) -> None:
    upload = CertificateUpload(file=file, certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31))
    settings = Settings(limiter=Limiter(), timeouts=Timeouts(connect=0.2 if origin.startswith("https") else 30.0))
    with sentry_sdk.start_transaction(name=name, op="call"):
        try:
            async with Springest(api_key=os.environ["SPRINGEST_API_KEY"], host=origin, settings=settings) as client:
                if name == "upload":
                    await client.upload(upload)
                else:
                    _ = [certificate async for certificate in client.certificates()]
        except SpringestError as error:
            sentry_sdk.capture_exception(error)
        sentry_sdk.capture_message(f"after {name}")  # which takes the breadcrumbs along


async def _main(file: Path, calls: list[str]) -> None:
    for call in calls:
        name, _, origin = call.partition(":")
        with sentry_sdk.isolation_scope():
            await _call(name, origin, file)


def _report_to_sentry() -> None:
    sentry_sdk.init(
        dsn="https://public@sentry.invalid/1",
        transport=_Printer,
        integrations=[AioHttpIntegration()],
        traces_sample_rate=1.0,
        include_local_variables=True,
        attach_stacktrace=True,
        send_default_pii=True,
        max_value_length=1_000_000,
        # Sentry would hide what is called `api_key`: here, nothing but the client hides the key.
        event_scrubber=EventScrubber(denylist=[], pii_denylist=[]),
    )


if __name__ == "__main__":
    _report_to_sentry()
    with patch("springest_async.upload.TRIES", 1), stamina.set_testing(True, attempts=1):
        asyncio.run(_main(Path(sys.argv[1]), sys.argv[2:]))
