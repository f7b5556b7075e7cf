"""All that goes wrong around an upload, as a catalogue: each fault with the exact outcome that it must have.

`tests/integration/test_faults.py` makes each of them happen on real sockets, and ``python -m tests.integration.faults``
writes what came of them into docs/faults.md. A group of faults is a module here; `catalogue` says what a fault is.
"""
