"""A local Springest on loopback, to develop and test against.

It imports nothing of the client, so that the two cannot share a bug, and it keeps its own record of what arrived and
when. It does what Springest's pages say and what Rails does; where both are silent, it is strict. It does not prove
how the real server behaves.

::

    from springest_async.sandbox import Sandbox

    async with Sandbox(limit=30, window="sliding") as sandbox:
        ...  # send requests to sandbox.origin, with sandbox.api_key
        print(sandbox.summary())
"""

from springest_async.sandbox.audit import Post, Summary
from springest_async.sandbox.certificates import SandboxCertification
from springest_async.sandbox.server import Mishap, Sandbox

__all__ = ["Mishap", "Post", "Sandbox", "SandboxCertification", "Summary"]
