"""The catalogue's groups, in the order of the document."""

from .answers import FAULTS as ANSWERS
from .catalogue import Fault
from .connections import FAULTS as CONNECTIONS
from .early import FAULTS as EARLY
from .echoes import FAULTS as ECHOES
from .lines import FAULTS as LINES

__all__ = ["GROUPS"]

GROUPS: dict[str, tuple[Fault, ...]] = {
    "The connection": CONNECTIONS,
    "The line": LINES,
    "The answer": ANSWERS,
    "An answer that comes early": EARLY,
    "A server that says the key": ECHOES,
}
