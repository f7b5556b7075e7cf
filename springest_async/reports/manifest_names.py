"""Name the manifests of a list so that people can tell them apart, also where their files have the same name."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from springest_async.journal.status import MigrationStatus

_PARTS = re.compile(r"[^/\\]+")  # of a path of any system: another machine may have written it


def names_of(migrations: Iterable[MigrationStatus]) -> dict[int, str]:
    """Return a name for each migration, by its key; no two are the same.

    It is the name of the manifest's file, with as much of the path before it as tells it from the others. Where the
    paths are the same, too, the host stands behind it, and else the migration's number: the journal knows machines only
    by digests.
    """
    by_name = defaultdict[str, list[MigrationStatus]](list)
    for migration in migrations:
        by_name[migration.name].append(migration)
    names: dict[int, str] = {}
    for name, group in by_name.items():
        names |= _told_apart(name, group)
    return names


def _told_apart(name: str, group: list[MigrationStatus]) -> dict[int, str]:
    """Return different names for migrations whose files have the same name."""
    if len(group) == 1:
        return {group[0].id: name}
    paths = _shortest({migration.path for migration in group})
    shown: dict[int, tuple[str, ...]] = {migration.id: (paths[migration.path],) for migration in group}
    for detail in _DETAILS:
        groups = defaultdict[tuple[str, ...], list[MigrationStatus]](list)
        for migration in group:
            groups[shown[migration.id]].append(migration)
        for same in groups.values():
            if len({detail(migration) for migration in same}) > 1:
                shown |= {migration.id: (*shown[migration.id], detail(migration)) for migration in same}
    return {key: f"{path} ({', '.join(details)})" if details else path for key, (path, *details) in shown.items()}


def _shortest(paths: Iterable[str]) -> dict[str, str]:
    """Return the shortest end of each path that no other one has, in whole parts."""
    found: dict[str, str] = {}
    rest = {path: [path[part.start() :] for part in _PARTS.finditer(path)][::-1] for path in paths}
    depth = 0
    while rest:
        # The whole of a path comes behind its ends: it begins with a "/", or is the end of a longer one.
        ends = {path: ends[depth] if depth < len(ends) else path for path, ends in rest.items()}
        times = Counter(ends.values())
        found |= {path: end for path, end in ends.items() if times[end] == 1 or end == path}
        rest = {path: ends for path, ends in rest.items() if path not in found}
        depth += 1
    return found


_DETAILS: tuple[Callable[[MigrationStatus], str], ...] = (
    lambda migration: migration.origin.removeprefix("https://"),
    lambda migration: f"number {migration.id}",
)
"""What tells migrations apart whose manifests have the same path."""
