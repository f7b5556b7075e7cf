"""Turn the plain values of an answer into records; it knows neither JSON nor XML.

It is strict about types, because ``int(1.9)`` and ``bool("false")`` would silently corrupt data. It accepts every shape
that Springest's pages leave open: a name on the certificate or on a nested certification, ids as strings, unknown keys.

`quick_structure` is the short way: code that is written out for each record. What fails there goes to a cattrs
converter with the same checks (`structure_strictly`), which decides, and words what is wrong.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import AttrsInstance, fields

from springest_async.records import Certificate, Certification, User

if TYPE_CHECKING:
    from cattrs import Converter

Record = TypeVar("Record", Certificate, Certification)

# Springest's ids have 64 bits, as a journal's have.
_ID_BOUND = 2**63


class DecodeError(ValueError):
    """The bytes are not what was expected; the text says what was expected, and where."""


def quick_structure(record: type[Record]) -> Callable[[Any], Record]:
    """Return what makes a record of plain values, or raises any exception when a value is wrong or unusual."""
    return _QUICK[record]


def structure_strictly(item: Any, record: type[Record], path: str) -> Record:
    """Return the same record as `quick_structure`, more slowly, or say what is wrong.

    Raises:
        DecodeError: when a value is wrong; it names up to three, with `path` as the place of the record.
    """
    from cattrs import transform_error  # noqa: PLC0415 # see `_converter`

    try:
        return _converter().structure(item, record)
    except Exception as error:  # noqa: BLE001 # cattrs groups all exceptions that the checks below raised
        problems = transform_error(error, path=path, format_exception=_problem)
        raise DecodeError("; ".join(problems[:3])) from None


def shown(value: object) -> str:
    """Return the value's ``repr``, shortened so that it fits into a message."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Return the text, shortened so that it fits into a message."""
    return text if len(text) <= 80 else text[:77] + "..."


# --- the checks of both ways ---


def identifier(value: object, _: object = int) -> int:
    """Return an id, which may come as a string.

    Raises:
        DecodeError: when the value is no id.
    """
    if not 0 < (number := integer(value)) < _ID_BOUND:
        raise DecodeError(f"id, not {shown(value)}")
    return number


def integer(value: object) -> int:
    """Return an integer, which may come as a string.

    Raises:
        DecodeError: when the value is no integer.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # Ids may be strings. A 64-bit id has at most nineteen digits.
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    raise DecodeError(f"integer, not {shown(value)}")


def _string(value: object, _: object = str) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"string, not {shown(value)}")
    # JSON can contain half of a surrogate pair, which cannot be printed or stored.
    return re.sub("[\ud800-\udfff]", "\ufffd", value)


def _boolean(value: object, _: object = bool) -> bool:
    if not isinstance(value, bool):
        raise DecodeError(f"boolean, not {shown(value)}")
    return value


def _date(value: object, _: object = date) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise DecodeError(f"date as in 2026-12-31, not {shown(value)}")


def _datetime(value: object, _: object = datetime) -> datetime:
    """Return a time that Rails wrote in either of its two ways; without a zone it is UTC, in which Rails stores it."""
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]", value):
        with suppress(ValueError):
            time = datetime.fromisoformat(re.sub(r" UTC$| (?=[+-][0-9:]+$)", "", value))
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    raise DecodeError(f"time as in 2026-12-31T12:00:00Z, not {shown(value)}")


def _with_inherited(value: dict[str, Any]) -> dict[str, Any]:
    """Return a certificate's values, with those that only its certification has."""
    # The help page does not say whether these belong to the certificate or to its certification.
    if isinstance(nested := value.get("certification"), dict):
        inherited = {"certification_id": "id", "name": "name", "description": "description"}
        return value | {own: nested.get(theirs) for own, theirs in inherited.items() if value.get(own) is None}
    return value


# --- the short way: any exception means "ask the strict one" ---


def _names(record: type[AttrsInstance]) -> tuple[str, ...]:
    return tuple(attribute.name for attribute in fields(record))


def _unfrozen(record: type) -> Any:
    """Return a class whose instances become records when their ``__class__`` is set, because it has the same slots.

    The constructor of a frozen class takes longer than all else here together: it sets each attribute with a call.
    Python compares only slots for values, so the record must have none for weak references.
    """
    slots: tuple[str, ...] = record.__slots__  # type: ignore[attr-defined] # attrs makes them
    return type(f"_Unfrozen{record.__name__}", (), {"__slots__": slots})


_UnfrozenCertificate, _UnfrozenUser = _unfrozen(Certificate), _unfrozen(User)
_values = itemgetter(*_names(Certificate))
_optional = {attribute.name: None for attribute in fields(Certificate) if attribute.default is None}
# A list repeats its days. A wrong one is not kept, so the cache holds two megabytes at most.
_day = lru_cache(8192)(_date)


def _quick_certificate(item: dict[str, Any]) -> Certificate:
    # Most checks are written out, because a call takes longer than the check: first what nearly every value is, else
    # the check of both ways.
    if "certification" in item:
        item = _with_inherited(item)
    try:
        number, certification_id, valid_from, name, description, valid_until, status, created_at, user = _values(item)
    except KeyError:
        number, certification_id, valid_from, name, description, valid_until, status, created_at, user = _values(
            _optional | item
        )
    is_id = type(number) is int and 0 < number < _ID_BOUND
    is_certification_id = type(certification_id) is int and 0 < certification_id < _ID_BOUND
    made = _UnfrozenCertificate()
    made.id = number if is_id else identifier(number)
    made.certification_id = certification_id if is_certification_id else identifier(certification_id)
    made.valid_from = _day(valid_from)
    made.name = name if name is None or name.isascii() else _string(name)
    made.description = description if description is None or description.isascii() else _string(description)
    made.valid_until = valid_until if valid_until is None else _day(valid_until)
    made.status = status if status is None or status.isascii() else _string(status)
    made.created_at = created_at if created_at is None else _quick_datetime(created_at)
    made.user = user if user is None else _quick_user(user)
    made.__class__ = Certificate
    return made  # type: ignore[no-any-return]


def _quick_datetime(value: str) -> datetime:
    # In UTC, as JSON of Rails is: no white space has to go. fromisoformat() checks the rest.
    if value[4:11:3] == "--T" and value[-1] == "Z":
        return datetime.fromisoformat(value)
    return _datetime(value)


def _quick_user(value: dict[str, Any]) -> User:
    email, external_id = value["email"], value.get("external_id")
    made = _UnfrozenUser()
    made.email = email if email.isascii() else _string(email)
    made.external_id = external_id if external_id is None or external_id.isascii() else _string(external_id)
    made.__class__ = User
    return made  # type: ignore[no-any-return]


def _quick_certification(item: dict[str, Any]) -> Certification:
    description = item.get("description")
    return Certification(
        id=identifier(item["id"]),
        name=_string(item["name"]),
        description=description if description is None else _string(description),
        requires_valid_until=_boolean(item.get("requires_valid_until", False)),
    )


_QUICK: dict[type, Callable[[Any], Any]] = {Certificate: _quick_certificate, Certification: _quick_certification}

# --- the strict way ---


@cache
def _converter() -> "Converter":
    """Return the converter, with one strict hook for each type, because cattrs alone would convert silently."""
    # Imported here, because it takes a fifth of the time that the package's import takes, and is rarely needed.
    from cattrs import Converter  # noqa: PLC0415
    from cattrs.gen import make_dict_structure_fn  # noqa: PLC0415

    converter = Converter(detailed_validation=True)
    converter.register_structure_hook(int, identifier)  # every integer of a record is an id
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(date, _date)
    converter.register_structure_hook(datetime, _datetime)
    structure_certificate = make_dict_structure_fn(Certificate, converter)

    def certificate(value: Any, _: object) -> Certificate:
        value = _with_inherited(value) if isinstance(value, dict) else value
        return structure_certificate(value, Certificate)  # anything but a mapping fails

    converter.register_structure_hook(Certificate, certificate)
    return converter


def _problem(error: BaseException, _: type | None) -> str:
    if isinstance(error, DecodeError):
        return str(error)
    if isinstance(error, KeyError):
        return f"field {error}, which is missing"
    return "an object"
