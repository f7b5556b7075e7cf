"""Every error says what happened, where, and what to do; survives pickle and copy; and hides the key."""

import contextlib
import copy
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from springest_async import errors
from springest_async.errors import (
    AnotherServer,
    AnswerError,
    CancelledTooLate,
    ConfigurationError,
    Fault,
    Forbidden,
    InDoubt,
    InvalidUpload,
    JournalError,
    JournalMissing,
    JournalUnavailable,
    ManifestError,
    MigrationMissing,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Redirected,
    Rejected,
    ServerError,
    SpringestError,
    TransportError,
    UnexpectedStatus,
    UnreadableAnswer,
    UnusableFile,
)
from springest_async.http.api_key import ApiKey

POST = "POST https://api.springest.nl/users/certificates.json"
GET = "GET https://api.springest.nl/users/certificates.json"
SENT_AT = datetime(2026, 1, 31, 12, 30, 5, tzinfo=UTC)
WHAT = ("jan@example.org", 7, date(2026, 1, 30), None, SENT_AT, SENT_AT + timedelta(minutes=2))

TEXTS: list[tuple[SpringestError, str]] = [
    (ConfigurationError("api_key is empty: ask for one"), "api_key is empty: ask for one"),
    (
        InvalidUpload((Fault("email", "must be a string"), Fault("valid_from", "must be a date"))),
        "this is not a valid certificate upload: email: must be a string; valid_from: must be a date",
    ),
    (ManifestError(Path("/archive/people.csv"), "has no column 'file'"), "/archive/people.csv: has no column 'file'"),
    (JournalError(Path("/archive/people.journal"), "is no journal"), "/archive/people.journal: is no journal"),
    (AnotherServer("postgresql://db/journal", "is another"), "postgresql://db/journal: is another"),
    (JournalMissing("postgresql://db/journal", "there is none"), "postgresql://db/journal: there is none"),
    (MigrationMissing("the journal", "it was erased"), "the journal: it was erased"),
    (JournalUnavailable("postgresql://db/journal", "it restarts"), "postgresql://db/journal: it restarts"),
    (UnusableFile(Path("/archive/jan.pdf"), "is empty"), "/archive/jan.pdf: is empty"),
    (AnswerError(POST, 402, "pay first"), f"{POST} answered 402: pay first. Nothing was stored."),
    (
        NotAuthorized(POST, 401, ""),
        f"{POST} answered 401. Check that the API key is the one for this host: each host has its own.",
    ),
    (
        Forbidden(POST, 403, "no"),
        f"{POST} answered 403: no. The key may not do this: certificates and certifications need different keys.",
    ),
    (NotFound(POST, 404, ""), f"{POST} answered 404. Check the host: this address does not exist there."),
    (
        Rejected(POST, 400, "ignored", (Fault("email", "is invalid"), Fault("file", "cannot be decoded"))),
        f"{POST} rejected the certificate (400): email: is invalid; file: cannot be decoded",
    ),
    (Rejected(POST, 400, "Bad Request"), f"{POST} rejected the certificate (400): Bad Request"),
    (Rejected(POST, 422, ""), f"{POST} rejected the certificate (422): the server gave no reason"),
    (
        Redirected(POST, 302, "", "https://other.example"),
        (
            f"{POST} answered 302 and points to https://other.example. Redirects are never followed: if that is the"
            " right host, name it in the settings."
        ),
    ),
    (
        Redirected(POST, 302, "", "https://api.springest.nl"),
        (
            f"{POST} answered 302 and points to another address on the same host. Redirects are never followed: ask"
            " Springest what has moved."
        ),
    ),
    (
        Redirected(POST, 304, "", ""),
        (
            f"{POST} answered 304 and points to nowhere. Redirects are never followed: if that is the right host,"
            " name it in the settings."
        ),
    ),
    (UnexpectedStatus(POST, 418, "teapot"), f"{POST} answered 418: teapot. Nothing was stored."),
    (
        ServerError(GET, 503, ""),
        f"{GET} answered 503. Something went wrong on Springest's side: try again later.",
    ),
    (
        UnreadableAnswer(GET, 200, "<html>", "integer, not 1.9 @ certificates[3].id"),
        (
            f"{GET} answered 200, which cannot be read: expected integer, not 1.9 @ certificates[3].id."
            " The answer began: <html>"
        ),
    ),
    (
        UnreadableAnswer(GET, 200, "", "JSON"),
        f"{GET} answered 200, which cannot be read: expected JSON.",
    ),
    (TransportError(POST, "the connection broke"), f"{POST}: the connection broke"),
    (NotSent(POST, "no connection: refused", connected=False), f"{POST}: no connection: refused"),
    (NoAnswer(GET, "no answer within the time allowed"), f"{GET}: no answer within the time allowed"),
    (
        InDoubt(POST, "the server answered 500, not 201", *WHAT, 500, "Oops"),
        (
            f"{POST}: the server answered 500, not 201 (Oops). The certificate of jan@example.org for certification 7,"
            " sent at 2026-01-31 12:30:05 UTC, may or may not be stored: check before you send it again."
        ),
    ),
    (
        InDoubt(POST, "no answer within the time allowed", *WHAT),
        (
            f"{POST}: no answer within the time allowed. The certificate of jan@example.org for certification 7,"
            " sent at 2026-01-31 12:30:05 UTC, may or may not be stored: check before you send it again."
        ),
    ),
    (
        InDoubt(POST, "no answer", *WHAT, request_id="18c2a"),
        (
            f"{POST}: no answer. The certificate of jan@example.org for certification 7, sent at 2026-01-31 12:30:05"
            " UTC, may or may not be stored: check before you send it again (Springest's staff can find it by its"
            " X-Request-Id: 18c2a)."
        ),
    ),
    (CancelledTooLate(POST), f"{POST}: cancelled too late: the certificate is stored."),
]
ALL = [pytest.param(error, id=f"{type(error).__name__}-{number}") for number, (error, _) in enumerate(TEXTS)]


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=[param.id for param in ALL])
def test_the_text_says_what_where_and_what_to_do(error: SpringestError, text: str) -> None:
    assert text == str(error)


def test_the_table_of_texts_leaves_no_error_out() -> None:
    kinds = {getattr(errors, name) for name in errors.__all__} - {Fault, SpringestError}

    assert kinds == {type(error) for error, _ in TEXTS}


def by_pickle(protocol: int) -> Callable[[SpringestError], SpringestError]:
    return lambda error: pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 # our own bytes


COPIERS: list[Callable[[Any], Any]] = [*map(by_pickle, range(2, pickle.HIGHEST_PROTOCOL + 1)), copy.copy, copy.deepcopy]


def fields_of(error: SpringestError) -> dict[str, object]:
    return attrs.asdict(error, recurse=False)  # type: ignore[arg-type] # each of them is an attrs class


@pytest.mark.parametrize("error", ALL)
def test_a_copy_of_an_error_says_the_same(error: SpringestError) -> None:
    for make_copy in COPIERS:
        copied = make_copy(error)

        assert type(error) is type(copied)
        assert (str(error), error.status, error.words) == (str(copied), copied.status, copied.words)
        assert fields_of(error) == fields_of(copied)


@pytest.mark.parametrize("error", ALL)
def test_a_copy_keeps_notes_and_added_attributes(error: SpringestError) -> None:
    tagged: Any = copy.copy(error)
    tagged.add_note("row 12")
    tagged.row = 12
    tagged.words = "changed"
    for make_copy in COPIERS:
        copied: Any = make_copy(tagged)

        assert (copied.__notes__, copied.row, copied.words) == (["row 12"], 12, "changed")


@pytest.mark.parametrize("error", ALL)
def test_an_error_passes_context_managers_as_it_is(error: SpringestError) -> None:
    @contextlib.contextmanager
    def block() -> Iterator[None]:
        yield

    with pytest.raises(SpringestError) as caught, block():
        raise error from None

    assert caught.value is error
    assert caught.value.__traceback__ is not None


def test_an_invalid_upload_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="email: must be a string"):
        raise InvalidUpload((Fault("email", "must be a string"),))


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("x"),
        InvalidUpload(()),
        UnusableFile(Path("x"), "y"),
        NotSent("x", "y"),
        NoAnswer("x", "y"),
        InDoubt("x", "y", *WHAT),
        CancelledTooLate("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_an_answer_there_is_no_status_and_no_words(error: SpringestError) -> None:
    assert (error.status, error.words) == (None, "")


def test_not_sent_means_connected_by_default() -> None:
    assert NotSent("x", "y").connected
    assert not NotSent("x", "y", connected=False).connected
    assert NotSent("x", "y", connected=False).trusted


def test_a_doubt_holds_all_that_is_needed_to_settle_it() -> None:
    doubt = InDoubt(POST, "the connection broke", *WHAT)

    assert (doubt.email, doubt.certification_id) == ("jan@example.org", 7)
    assert (doubt.valid_from, doubt.valid_until) == (date(2026, 1, 30), None)
    assert (doubt.sent_at, doubt.given_up_at) == (SENT_AT, SENT_AT + timedelta(minutes=2))


def test_an_unavailable_journal_is_caught_as_a_journal_error() -> None:
    with pytest.raises(JournalError) as caught:
        raise JournalUnavailable(Path("people.journal"), "is locked")

    assert (caught.value.journal, caught.value.status, caught.value.words) == (Path("people.journal"), None, "")


def test_faults_compare_by_value() -> None:
    assert Fault("email", "is invalid") == Fault("email", "is invalid")
    assert Fault("email", "is invalid") != Fault("email", "is taken")
    assert str(Fault("email", "is invalid")) == "email: is invalid"


def test_a_fault_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Fault("email", "is invalid").field = "file"  # type: ignore[misc] # that is the test


def test_no_text_of_an_api_key_shows_it() -> None:
    key = ApiKey("s3cr3t")

    assert [repr(key), str(key), f"{key}", f"{key!r}", "%s" % key, repr([key])] == [  # noqa: UP031 # loggers do so
        *["ApiKey('***')"] * 5,
        "[ApiKey('***')]",
    ]


@pytest.mark.parametrize(
    ("echo", "hidden"),
    [
        (b"GET /?api_key=s+/ %&=k HTTP/1.1", b"GET /?api_key=*** HTTP/1.1"),
        (b"GET /?api_key=s%2B%2F%20%25%26%3Dk", b"GET /?api_key=***"),
        (b"GET /?api_key=s%2B%2F+%25%26%3Dk", b"GET /?api_key=***"),
        (b"GET /?api_key=s%2B/%20%25%26%3Dk", b"GET /?api_key=***"),
        (b"nothing of the kind", b"nothing of the kind"),
        (b"twice s+/ %&=k and s+/ %&=k", b"twice *** and ***"),
    ],
)
def test_an_api_key_is_taken_out_of_what_a_server_sends_back(echo: bytes, hidden: bytes) -> None:
    assert hidden == ApiKey("s+/ %&=k").hide_in(echo)


@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(b"s+/ %&amp;=k", id="HTML"),
        pytest.param(b"s+&#x2F; %&amp;=k", id="HTML as Rack escapes it"),
        pytest.param(rb"s+/ %\u0026=k", id="JSON as Rails escapes it"),
        pytest.param(rb"s+\/ %&=k", id="JSON with escaped slashes"),
        pytest.param(b"s%2b%2f%20%25%26%3dk", id="percent-encoded in lower case"),
    ],
)
def test_an_api_key_is_taken_out_however_the_server_escaped_it(echo: bytes) -> None:
    assert ApiKey("s+/ %&=k").hide_in(b"<p>api_key=" + echo + b"</p>") == b"<p>api_key=***</p>"
