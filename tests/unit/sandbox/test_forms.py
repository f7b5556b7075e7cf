"""The meter of a file: size, hash and base64, however the bytes are divided into chunks."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.sandbox.forms import FileMeter


def measure(content: bytes, chunk_bytes: int = 7) -> FileMeter:
    meter = FileMeter()
    for start in range(0, len(content), chunk_bytes):
        meter.add(content[start : start + chunk_bytes])
    return meter


@given(st.binary(max_size=500), st.integers(1, 50))
def test_size_and_hash_do_not_depend_on_the_chunks(content: bytes, chunk_bytes: int) -> None:
    meter = measure(content, chunk_bytes)

    assert len(content) == meter.size
    assert hashlib.sha256(content).hexdigest() == meter.sha256


@given(st.binary(min_size=1, max_size=500), st.integers(1, 50))
def test_base64_is_recognised_whole_or_in_lines(content: bytes, chunk_bytes: int) -> None:
    assert measure(base64.b64encode(content), chunk_bytes).is_base64
    assert measure(base64.encodebytes(content), chunk_bytes).is_base64


@given(st.binary(max_size=500), st.integers(1, 50))
def test_a_pdf_is_never_taken_for_base64(content: bytes, chunk_bytes: int) -> None:
    assert not measure(b"%PDF-1.7\n" + content, chunk_bytes).is_base64


@pytest.mark.parametrize("content", [b"", b"\r\n", b"====", b"abcde", b"ab==cdef", b"abc=defg", b"a==="])
def test_what_only_resembles_base64(content: bytes) -> None:
    assert not measure(content, 2).is_base64
