"""Where a journal in a file is: its default place, the places that cannot hold one, and the name of this machine.

SQLite needs the locks and the shared memory of one machine, so a journal on a network file system is refused. The type
of a file system is read from Linux's list of mounts; on macOS and Windows, which have none, no place is refused and
none is warned about. No function here opens a file that may be a journal in use: closing it would release the locks
that SQLite holds on it for this process. `is_old` does, so it is for other files. The database itself is `sqlite`.
"""

import errno
import hashlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from attrs import frozen
from platformdirs import user_state_path

from springest_async.errors import ConfigurationError, JournalError
from springest_async.source_file import open_regular

_WAY_OUT = "name another file with --journal or SPRINGEST_JOURNAL"

# fmt: off
_NETWORK = frozenset({
    # protocols; WSL shows the drives of Windows as 9p or drvfs
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "drvfs", "virtiofs", "davfs",
    # clusters, whose machines may even see each other's locks, but not each other's memory
    "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "gfs2", "ocfs2", "orangefs",
    # folders of the host in a virtual machine or in a container of Docker Desktop
    "vboxsf", "vmhgfs", "prl_fs", "fakeowner", "osxfs", "fuse.osxfs", "fuse.grpcfuse", "fuse.vmhgfs-fuse",
    # shares and object stores that a program mounts
    "fuse.sshfs", "fuse.smbnetfs", "fuse.curlftpfs", "fuse.davfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse",
    "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.mount-s3", "fuse.goofys", "fuse.gcsfuse", "fuse.blobfuse2",
    "fuse.google-drive-ocamlfuse", "fuse.gvfsd-fuse", "fuse.kio-fuse",
})
# fmt: on
_MEMORY = frozenset({"tmpfs", "ramfs"})
_CONTAINER = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})

_FULL = "its disk is full: free some space"
_FORBIDDEN = "cannot be written: check the permissions of the file and its folder, and that the disk is not read-only"
_NO_FOLDER = "its folder cannot be created, because there is a file of that name"
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}

OLD_APPLICATION_ID = 0x53505247
"""Marks journals of the old form."""

OLD_JOURNAL = (
    "was made by an early version of springest, whose journals cannot be read any more. Nothing was sent. Certificates"
    " that it says are stored would be stored twice: ask Springest for a list before you go on, then move it away"
)
"""The reason why a journal of the old form is refused."""


def default_path() -> Path:
    """Return the path of this user's journal: ``journal.sqlite3`` in the state folder.

    That is XDG's on Linux, the local application data on Windows.

    Raises:
        ConfigurationError: the user has no such folder, as in a container that was started for a number.
    """
    with suppress(RuntimeError):  # some versions of platformdirs raise it, others return a path that begins with ~
        folder = user_state_path("springest", appauthor=False)
        if folder.is_absolute():
            return folder / "journal.sqlite3"
    raise ConfigurationError(
        "there is no folder where the journal can be kept: name a file with --journal or SPRINGEST_JOURNAL, or set HOME"
    )


def prepare(path: Path) -> Path:
    """Return the path with all links resolved; create an empty file there, and its folder, for this user only.

    A file that exists is neither opened nor changed. Call `refuse_network` first, so that nothing is created there.

    Raises:
        JournalError: it is not a file, or it cannot be created or written.
    """
    path = _resolve(path)
    with _translate_errors(path):
        absent = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never open a file that exists (see above).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            # SQLite keeps the content through a power cut, but not the name of the folder.
            for folder in (path.parent, *(folder.parent for folder in absent)):
                _flush(folder)
        mode = path.stat().st_mode
    if S_ISDIR(mode):
        raise JournalError(path, "is a folder: name a file in it with --journal or SPRINGEST_JOURNAL")
    if not S_ISREG(mode):
        raise JournalError(path, f"is not a regular file: {_WAY_OUT}")
    # SQLite writes other files beside it.
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise JournalError(path, f"{_FORBIDDEN}; or {_WAY_OUT}")
    return path


def refuse_network(path: Path) -> None:
    """Check that a journal can be in this place, whether the file exists or not.

    Raises:
        JournalError: it is on a network file system.
    """
    path = _resolve(path)
    kind = file_system(path, _read_mounts())
    if kind in _NETWORK:
        raise JournalError(
            path,
            f"is on a network or shared file system ({kind}), where SQLite's locks do not work: {_WAY_OUT}, on a disk"
            " of this machine. To share a journal between machines, use PostgreSQL: --journal postgresql://…",
        )


def warning_about(path: Path) -> str | None:
    """Return a warning for people when the journal is in a place that does not last, else None."""
    path = _resolve(path)
    kind = file_system(path, _read_mounts())
    if kind in _MEMORY:
        end, remedy = "when this machine restarts", "name a file on a disk"
    elif kind in _CONTAINER:
        end, remedy = "with the container", "mount a volume, and name a file on it"
    else:
        return None
    return (
        f"{path}: this journal goes away {end}, and only it knows which certificates were sent: {remedy} with --journal"
        " or SPRINGEST_JOURNAL"
    )


def machine() -> str:
    """Return a name of this machine and this user's state folder: 32 hex digits, the same at each call.

    What is remembered about paths holds for one such name: two users, or two containers, see other files.
    """
    parts = [platform.node().encode(errors="surrogateescape")]
    with suppress(OSError):  # only Linux has it
        parts.append(Path("/etc/machine-id").read_bytes().strip())
    with suppress(ConfigurationError):
        parts.append(os.fsencode(default_path().parent))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def old_journal_beside(manifest: Path) -> Path | None:
    """Return the journal of the old form that belongs to a manifest, if there is one: ``x.journal`` beside ``x.csv``.

    It belongs to ``x.failed.csv`` and ``x.in-doubt-2.csv``, which a run writes, too.
    """
    stem = re.sub(r"\.(failed|in-doubt)(-[0-9]+)?$", "", manifest.stem)
    path = manifest.parent / f"{stem}.journal"
    return path if is_old(path) else None


def is_old(path: Path) -> bool:
    """Return whether a file is a journal of the old form; not for a journal that this process has open (see above)."""
    try:
        with open_regular(path) as stream:
            header = stream.read(72)
    except OSError:
        return False
    # "The Database Header" on https://www.sqlite.org/fileformat.html: the application's id is at offset 68.
    return header.startswith(b"SQLite format 3\0") and header[68:] == OLD_APPLICATION_ID.to_bytes(4, "big")


@frozen
class _Mount:
    number: int
    parent: int
    point: Path
    kind: str


def file_system(path: Path, mounts: str) -> str:
    """Return the type of the file system that holds a path, or an empty text when that is unknown.

    Args:
        path: absolute and without links; nothing need exist there.
        mounts: the content of ``/proc/self/mountinfo`` (see proc_pid_mountinfo(5)).
    """
    above = [mount for mount in _parse(mounts) if path.is_relative_to(mount.point)]
    numbers = {mount.number for mount in above}
    # Go down from the root as the kernel does: of two mounts on one, the upper folder hides the lower; a mount on the
    # same folder as its parent hides that.
    kind = ""
    here = [mount for mount in above if mount.parent not in numbers or mount.parent == mount.number]
    while here:
        current = min(here, key=lambda mount: len(mount.point.parts))
        kind = current.kind
        here = [mount for mount in above if mount.parent == current.number != mount.number]
    return kind


def _parse(mounts: str) -> Iterator[_Mount]:
    for line in mounts.split("\n"):
        mount, _, source = line.partition(" - ")
        if source:
            number, parent, _, _, point, *_ = mount.split(" ")
            # Spaces and the like are escaped, as \040.
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
            yield _Mount(int(number), int(parent), Path(point), source.split(" ")[0])


def _read_mounts() -> str:
    try:
        return os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return ""


def _resolve(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        raise JournalError(path, f"is not a valid file name: {_WAY_OUT}") from None
    except FileNotFoundError:
        raise JournalError(path, "the current folder was deleted: change to another folder") from None


def _flush(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or f"cannot be created ({error.strerror}): check the path"
        raise JournalError(path, f"{reason}; or {_WAY_OUT}") from error
