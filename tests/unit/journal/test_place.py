"""Where a journal may be: the default place, files and folders that cannot hold one, and file systems."""

import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from springest_async.errors import ConfigurationError, JournalError
from springest_async.journal import place
from springest_async.journal.place import (
    default_path,
    file_system,
    is_old,
    machine,
    old_journal_beside,
    prepare,
    refuse_network,
    warning_about,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this")
WAY_OUT = "name another file with --journal or SPRINGEST_JOURNAL"
# Root writes what it may not, unless it gives up that it may.
LESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


# The default


def test_the_default_is_in_the_user_s_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    if sys.platform == "linux":
        assert default_path() == tmp_path / "springest" / "journal.sqlite3"
    assert default_path().name == "journal.sqlite3"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a user without a home, as in a container that was started for a number and not for a name."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # raises the KeyError that it raises for a stranger


@linux
@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("platform", ["raises", "answers"])
def test_a_user_without_a_home_gets_an_error(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    if platform == "answers":  # as platformdirs did once
        monkeypatch.setattr(place, "user_state_path", lambda *_, **__: Path("~/.local/state/springest"))

    with pytest.raises(ConfigurationError, match=r"--journal or SPRINGEST_JOURNAL, or set HOME$"):
        default_path()


# Files and folders


def test_a_new_journal_is_empty_and_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "springest" / "journal.sqlite3"

    assert prepare(path) == path

    assert path.read_bytes() == b""
    if os.name == "posix":
        assert [stat.S_IMODE(one.stat().st_mode) for one in (path.parent, path)] == [0o700, 0o600]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and so on", b"Dear Jan,"])
def test_a_file_that_exists_is_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(content)
    before = path.stat()

    assert prepare(path) == path

    after = path.stat()
    assert path.read_bytes() == content
    assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)


def test_preparing_keeps_the_locks_of_this_process(tmp_path: Path) -> None:
    """Closing a file releases the locks that the process has on it, also those of SQLite."""
    path = prepare(tmp_path / "journal.sqlite3")
    write = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('CREATE TABLE other (x)')"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")

        prepare(path)
        warning_about(path)
        refuse_network(path)

        other = subprocess.run([sys.executable, "-c", write, path], check=False, capture_output=True, text=True)
    assert "database is locked" in other.stderr


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "journal").symlink_to(tmp_path / "link" / "new.sqlite3")

    assert prepare(tmp_path / "journal") == tmp_path / "folder" / "new.sqlite3"
    assert (tmp_path / "folder" / "new.sqlite3").is_file()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pipes and devices among its files")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "is a folder: name a file in it with --journal or SPRINGEST_JOURNAL"),
        (os.mkfifo, f"is not a regular file: {WAY_OUT}"),
        (lambda path: path.symlink_to("/dev/null"), f"is not a regular file: {WAY_OUT}"),
        (lambda path: path.symlink_to(path), f"(Too many levels of symbolic links): check the path; or {WAY_OUT}"),
    ],
)
def test_what_is_not_a_file_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "journal"
    make(path)

    with pytest.raises(JournalError) as caught:
        prepare(path)

    assert caught.value.reason.endswith(reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/journal", "there is a file of that name"),
        ("file/folder/journal", "there is a file of that name"),
        ("n" * 300, "(File name too long): check the path"),
        ("\0", "is not a valid file name"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="the words of a system with POSIX")
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(JournalError) as caught:
        prepare(tmp_path / name)

    assert reason in caught.value.reason
    assert caught.value.reason.endswith(WAY_OUT)


def test_a_current_folder_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(JournalError, match="the current folder was deleted"):
        prepare(Path("journal.sqlite3"))


PREPARE = """
import sys
from pathlib import Path
from springest_async.errors import JournalError
from springest_async.journal.place import prepare
try:
    prepare(Path(sys.argv[1]))
except JournalError as error:
    print(error.reason)
"""


def refusal(path: Path, *prefix: str) -> str:
    """Prepare a path in another process; return the reason that it prints when that is refused."""
    ran = subprocess.run([*prefix, sys.executable, "-c", PREPARE, path], check=True, capture_output=True, text=True)
    return ran.stdout.strip()


FORBIDDEN = "cannot be written: check the permissions of the file and its folder, and that the disk is not read-only;"
FULL = "its disk is full: free some space;"


@linux
@pytest.mark.parametrize(
    ("locked", "mode", "name"),
    [
        ("folder", 0o500, "folder/new"),
        ("folder", 0o500, "folder/new/new"),
        ("folder", 0o000, "folder/new/new"),
        ("folder", 0o500, "folder/journal"),
        ("folder/journal", 0o400, "folder/journal"),
        ("folder/journal", 0o200, "folder/journal"),
    ],
)
def test_permissions_are_checked(tmp_path: Path, locked: str, mode: int, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/journal").touch()
    (tmp_path / locked).chmod(mode)

    reason = refusal(tmp_path / name, *(LESS if os.geteuid() == 0 else []))
    (tmp_path / locked).chmod(0o700)

    assert reason == f"{FORBIDDEN} or {WAY_OUT}"


@linux
@pytest.mark.parametrize("name", ["journal", "folder/journal"])
@pytest.mark.parametrize(("options", "reason"), [("ro", FORBIDDEN), ("nr_inodes=1", FULL)])
def test_a_disk_that_takes_nothing_is_refused(tmp_path: Path, options: str, reason: str, name: str) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount anything")
    mount = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'

    assert refusal(tmp_path / name, *apart, "sh", "-c", mount, str(tmp_path)) == f"{reason} or {WAY_OUT}"


# File systems

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 27 0:23 / /mnt/quick rw - tmpfs tmpfs rw,size=24684092k
30 25 0:27 / /mnt/quick rw - ramfs ramfs rw
31 27 0:30 / /mnt/c rw,noatime - 9p C:\134 rw,aname=drvfs;path=C:\;uid=1000
32 27 0:31 / /home/jan\040de\134groot rw shared:7 master:2 - nfs4 server:/home rw,vers=4.2
33 27 0:32 / /srv/archive rw - cifs //server/archive rw
34 27 0:33 / /srv rw - xfs /dev/vdb rw
35 34 0:34 / /srv/tools rw - fuse.sshfs jan@host: rw
36 27 0:35 / /auto rw - autofs /etc/auto.misc rw,direct
37 36 0:36 / /auto rw - nfs server:/auto rw
38 34 0:37 / /srv/empty rw - tmpfs  rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/piet/journal", "ext4"),
        ("/proc", "proc"),
        ("/mnt/quick/journal", "ramfs"),
        ("/mnt/quickjournal", "ext4"),
        ("/mnt/c/Users/jan/journal", "9p"),
        ("/home/jan de\\groot/journal", "nfs4"),
        ("/home/jan/journal", "ext4"),
        ("/srv/archive/journal", "xfs"),  # the share is hidden by what was mounted on the folder above it
        ("/srv/tools/journal", "fuse.sshfs"),
        ("/auto/journal", "nfs"),
        ("/srv/empty/journal", "tmpfs"),
    ],
)
def test_the_file_system_is_that_of_the_mount_above(path: str, expected: str) -> None:
    assert file_system(Path(path), MOUNTS) == expected


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("", ""),
        ("35 34 0:34 / /other rw - nfs server:/other rw", ""),  # a changed root that is not itself a mount
        ("35 34 0:34 / /srv rw - nfs server:/srv rw", "nfs"),
        ("1 1 0:2 / / rw - rootfs rootfs rw\n20 1 8:1 / / rw - btrfs /dev/sda rw", "btrfs"),
    ],
)
def test_roots_of_all_kinds_are_known(mounts: str, expected: str) -> None:
    assert file_system(Path("/srv/journal"), mounts) == expected


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes all files seem to be on a file system of one type."""

    def change(kind: str) -> None:
        monkeypatch.setattr(place, "_read_mounts", lambda: f"1 0 0:1 / / rw - {kind} none rw\n")

    return change


@pytest.mark.skipif(os.name != "posix", reason="the paths of a mount are POSIX's")
@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "drvfs", "virtiofs", "fuse.sshfs", "ceph"])
def test_a_network_is_refused_before_anything_is_made(tmp_path: Path, on: Callable[[str], None], kind: str) -> None:
    path = tmp_path / "folder" / "journal"
    on(kind)

    with pytest.raises(JournalError) as caught:
        refuse_network(path)

    assert str(caught.value) == (
        f"{path}: is on a network or shared file system ({kind}), where SQLite's locks do not work: {WAY_OUT}, on a"
        " disk of this machine. To share a journal between machines, use PostgreSQL: --journal postgresql://…"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="the paths of a mount are POSIX's")
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "vfat", "fuseblk", "overlay", "tmpfs"])
def test_a_disk_of_this_machine_is_not_refused(tmp_path: Path, on: Callable[[str], None], kind: str) -> None:
    on(kind)

    refuse_network(tmp_path / "journal")


@pytest.mark.skipif(os.name != "posix", reason="the paths of a mount are POSIX's")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("overlay", "goes away with the container, and only it knows which certificates were sent: mount a volume,"),
        ("tmpfs", "goes away when this machine restarts, and only it knows which certificates were sent: name a file"),
        ("ramfs", "goes away when this machine restarts"),
    ],
)
def test_a_place_that_does_not_last_is_warned_about(
    tmp_path: Path, on: Callable[[str], None], kind: str, words: str
) -> None:
    on(kind)

    warning = warning_about(tmp_path / "journal") or ""

    assert warning.startswith(f"{tmp_path / 'journal'}: this journal {words}")
    assert warning.endswith("with --journal or SPRINGEST_JOURNAL")


@pytest.mark.parametrize("kind", ["ext4", "", "fuseblk"])
def test_a_disk_is_not_warned_about(tmp_path: Path, on: Callable[[str], None], kind: str) -> None:
    on(kind)

    assert warning_about(tmp_path / "journal") is None


@linux
def test_shared_memory_is_warned_about() -> None:
    """The list of mounts that this machine really has."""
    warning = warning_about(Path("/dev/shm/springest/journal"))  # noqa: S108 # nothing is written there

    assert "when this machine restarts" in (warning or "")


def test_nothing_is_refused_where_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_read_mounts", lambda: "")  # as where there is no list of mounts
    refuse_network(tmp_path / "journal")
    assert warning_about(tmp_path / "journal") is None


# The machine


def test_a_machine_keeps_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    name = machine()

    assert bytes.fromhex(name).hex() == name
    assert (len(name), machine()) == (32, name)
    assert not list(tmp_path.iterdir())


@linux
def test_two_homes_on_one_host_are_two_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = []
    for home in ("jan", "piet"):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / home))
        names.append(machine())

    assert names[0] != names[1]


def test_two_hosts_with_one_home_are_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [machine()]
    monkeypatch.setattr("platform.node", lambda: "another")
    names.append(machine())

    assert names[0] != names[1]


@linux
@pytest.mark.usefixtures("homeless")
def test_a_machine_without_a_state_folder_has_a_name() -> None:
    assert (len(machine()), machine()) == (32, machine())


# The old form


def old_journal(path: Path, application_id: int = 0x53505247) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY)")
        connection.execute(f"PRAGMA application_id = {application_id}")
    return path


def test_an_old_journal_is_recognised_and_not_changed(tmp_path: Path) -> None:
    path = old_journal(tmp_path / "certificates.journal")
    before = hashlib.sha256(path.read_bytes()).digest()

    assert is_old(path)
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert not is_old(old_journal(tmp_path / "new.journal", 0x5350524A))


@pytest.mark.parametrize("content", [b"", b"Dear Jan,", b"SQLite format 3\0", bytes(68) + b"SPRG"])
def test_another_file_is_not_an_old_journal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.journal").write_bytes(content)

    assert not is_old(tmp_path / "x.journal")
    assert not is_old(tmp_path / "none.journal")
    assert not is_old(tmp_path)


@pytest.mark.parametrize(
    "name", ["x.csv", "x.xlsx", "x", "x.failed.csv", "x.failed-2.csv", "x.in-doubt.csv", "x.in-doubt-10.csv"]
)
def test_an_old_journal_is_found_beside_its_manifests(tmp_path: Path, name: str) -> None:
    old = old_journal(tmp_path / "x.journal")

    assert old_journal_beside(tmp_path / name) == old
    assert old_journal_beside(tmp_path / f"another-{name}") is None


def test_a_new_journal_beside_a_manifest_is_not_old(tmp_path: Path) -> None:
    old_journal(tmp_path / "x.journal", 0x5350524A)

    assert old_journal_beside(tmp_path / "x.csv") is None
    assert old_journal_beside(Path()) is None
