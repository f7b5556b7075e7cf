"""ZIP archives for tests, as other programs write them."""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["raw_zip", "zip_of"]


def zip_of(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write an archive, each time with the same bytes for the same members, and return its path."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def raw_zip(
    path: Path,
    members: Mapping[bytes, bytes],
    *,
    flags: int = 0,
    method: int = 0,
    extra: Mapping[bytes, bytes] | None = None,
) -> Path:
    """Write an archive whose names, flags and methods `zipfile` would not write; nothing in it is packed.

    Args:
        path: where.
        members: contents by the bytes of their names.
        flags: of all.
        method: how all say that they are packed.
        extra: the extra fields of members, by name.
    """
    written, listed = b"", b""
    for name, content in members.items():
        fields = (extra or {}).get(name, b"")
        common = struct.pack(
            "<5H3L2H",
            20,
            flags,
            method,
            0,
            0x21,
            zlib.crc32(content),
            len(content),
            len(content),
            len(name),
            len(fields),
        )
        listed += b"PK\x01\x02\x14\x03" + common + struct.pack("<3H2L", 0, 0, 0, 0, len(written)) + name + fields
        written += b"PK\x03\x04" + common + name + fields + content
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(members), len(members), len(listed), len(written), 0)
    path.write_bytes(written + listed + end)
    return path
