"""Finding a certificate in doubt in a list: another one is never taken for ours, and ours is never overlooked."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async import Certificate, InDoubt, User
from springest_async.api.settlement import Unclear, clock_was_ahead, find, listed_from
from tests.doubts import SENT_AT, doubt

EMAIL, CERTIFICATION, FROM, UNTIL = "jan@example.org", 7, date(2026, 1, 30), date(2027, 1, 30)
SECOND = timedelta(seconds=1)


def listed(**changes: Any) -> Certificate:
    """Return a certificate that is equal to the one in `doubt`, except for `changes`."""
    values: dict[str, Any] = {
        "id": 1,
        "certification_id": CERTIFICATION,
        "valid_from": FROM,
        "valid_until": UNTIL,
        "created_at": SENT_AT + SECOND,
        "user": User(email=EMAIL),
    }
    return Certificate(**(values | changes))


def reason_of(found: Certificate | Unclear | None) -> str:
    assert isinstance(found, Unclear)
    return found.reason


# --- the clocks ---

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (SENT_AT, SENT_AT, False),
        (SENT_AT, None, False),
        (SENT_AT + 999 * 24 * HOUR, None, False),  # it was sent long ago
        (SENT_AT - 23 * HOUR, SENT_AT - 23 * HOUR, False),  # as far as this, it is seen to be unclear
        (SENT_AT - 25 * HOUR, SENT_AT - 25 * HOUR, True),  # set right since
        (SENT_AT - 25 * HOUR, None, True),
        (SENT_AT, SENT_AT - 25 * HOUR, True),  # still wrong
        (SENT_AT + 99 * HOUR, SENT_AT + 70 * HOUR, True),
        (SENT_AT + 70 * HOUR, SENT_AT + 99 * HOUR, False),  # behind: what is ours is newer all the more
        (SENT_AT, datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-23 * HOUR)), False),
        (SENT_AT, datetime(1, 1, 1, tzinfo=timezone(23 * HOUR)), True),
    ],
)
def test_a_clock_that_was_days_ahead_is_seen(here: datetime, there: datetime | None, expected: bool) -> None:
    assert clock_was_ahead(doubt(), here, there) is expected


# --- one certificate ---


def test_without_any_certificate_nothing_is_found() -> None:
    assert find(doubt(), []) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="in nothing"),
        pytest.param({"name": "VCA", "description": "Basic", "status": "whatever"}, id="in what was not sent"),
        pytest.param({"user": User(email=EMAIL, external_id="12")}, id="in the employee's other id"),
        pytest.param({"user": User(email="Jan@Example.ORG")}, id="in the case of the e-mail address"),
        pytest.param({"created_at": SENT_AT}, id="created when it was sent"),
        pytest.param({"created_at": SENT_AT + timedelta(days=400)}, id="created long after"),
        pytest.param({"created_at": SENT_AT - timedelta(minutes=2)}, id="created before, by a clock that is slow"),
    ],
)
def test_a_certificate_equal_in_what_was_sent_is_ours(changes: dict[str, Any]) -> None:
    certificate = listed(**changes)

    assert find(doubt(), [certificate]) is certificate


@pytest.mark.parametrize(
    ("email", "other"),
    [
        ("jan@example.org", "JAN@EXAMPLE.ORG"),
        ("JAN@EXAMPLE.ORG", "jan@example.org"),
        ("JAN@example.org", "Jan@Example.org"),
    ],
)
def test_the_case_of_an_email_address_means_nothing(email: str, other: str) -> None:
    certificate = listed(user=User(email=other))

    assert find(doubt(email=email), [certificate]) is certificate


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"user": User(email="jan@example.com")}, id="another employee"),
        pytest.param({"certification_id": 8}, id="another certification"),
        pytest.param({"valid_from": FROM + timedelta(days=1)}, id="valid from another day"),
        pytest.param({"valid_until": UNTIL + timedelta(days=1)}, id="valid until another day"),
        pytest.param({"created_at": SENT_AT - timedelta(days=1) - SECOND}, id="created more than a day before"),
        pytest.param({"created_at": None, "valid_from": FROM + timedelta(days=1)}, id="another, of an unknown time"),
        pytest.param({"user": None, "certification_id": 8}, id="another, of an unknown employee"),
    ],
)
def test_a_certificate_that_differs_in_what_was_sent_is_another(changes: dict[str, Any]) -> None:
    assert find(doubt(), [listed(**changes)]) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"user": None}, "which does not say whose it is", id="no employee"),
        pytest.param({"created_at": None}, "which does not say when it was created", id="no time"),
        pytest.param(
            {"created_at": SENT_AT - timedelta(minutes=2) - SECOND},
            "which was created at 2026-01-31 12:27:59 UTC, before this one was sent",
            id="a little too early",
        ),
        pytest.param(
            {"created_at": SENT_AT - timedelta(days=1)},
            "which was created at 2026-01-30 12:30:00 UTC, before this one was sent",
            id="a day too early",
        ),
        pytest.param({"valid_until": None}, "which is valid until an unknown day, not 2027-01-30", id="no end"),
    ],
)
def test_a_certificate_that_may_be_ours_is_unclear(changes: dict[str, Any], reason: str) -> None:
    assert reason_of(find(doubt(), [listed(id=12, **changes)])) == f"Springest lists certificate 12, {reason}"


def test_an_end_that_springest_gave_it_is_unclear() -> None:
    # A certification may have a duration of its own, from which Springest works out the end.
    reason = reason_of(find(doubt(valid_until=None), [listed(id=12)]))

    assert reason.startswith("Springest lists certificate 12, which is valid until 2027-01-30")


def test_no_end_on_either_side_is_the_same_end() -> None:
    certificate = listed(valid_until=None)

    assert find(doubt(valid_until=None), [certificate]) is certificate


@pytest.mark.parametrize("hours", [-12, -5, 0, 1, 2, 14])
def test_a_time_means_the_same_in_every_zone(hours: int) -> None:
    there = timezone(timedelta(hours=hours))
    ours = listed(created_at=(SENT_AT + SECOND).astimezone(there))
    early = listed(created_at=(SENT_AT - timedelta(minutes=3)).astimezone(there))
    another = listed(created_at=(SENT_AT - timedelta(days=2)).astimezone(there))

    assert find(doubt(), [ours]) is ours
    assert isinstance(find(doubt(), [early]), Unclear)
    assert find(doubt(), [another]) is None


# --- several ---


def test_several_equal_certificates_are_unclear() -> None:
    certificates = [listed(id=number, created_at=SENT_AT + number * SECOND) for number in (3, 1, 2)]

    assert find(doubt(), certificates) == Unclear("Springest lists several such certificates (1, 2, 3)")
    assert find(doubt(), certificates, {1, 3}) is certificates[2]


def test_a_clear_one_is_found_among_unclear_ones_and_others() -> None:
    ours = listed(id=3)
    certificates = [listed(id=1, created_at=None), listed(id=2, valid_from=UNTIL), ours, listed(id=4, user=None)]

    assert find(doubt(), certificates) is ours


@pytest.mark.parametrize(
    "changes", [{}, {"created_at": None}, {"user": None}, {"valid_until": None}], ids=["clear", "time", "user", "end"]
)
def test_a_known_other_certificate_is_not_ours(changes: dict[str, Any]) -> None:
    assert find(doubt(), [listed(id=12, **changes)], {12}) is None


def test_the_next_one_is_ours_when_the_first_is_known() -> None:
    first, second = listed(id=1), listed(id=2, created_at=SENT_AT + 9 * SECOND)

    assert find(doubt(), [first, second], [1]) is second
    assert find(doubt(), [first, second], [1, 2]) is None


# --- from when ---


@pytest.mark.parametrize(
    ("sent_at", "day"),
    [
        (datetime(2026, 1, 31, 0, 0, tzinfo=UTC), date(2026, 1, 29)),
        (datetime(2026, 1, 31, 23, 59, tzinfo=UTC), date(2026, 1, 29)),
        (datetime(2026, 3, 1, 12, 0, tzinfo=UTC), date(2026, 2, 27)),
        (datetime(2026, 1, 1, 12, 0, tzinfo=UTC), date(2025, 12, 30)),
    ],
)
def test_certificates_are_wanted_from_two_days_before(sent_at: datetime, day: date) -> None:
    assert listed_from(doubt(sent_at=sent_at)) == day


# --- whatever is listed ---

zones = st.integers(-12 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))
times = st.one_of(
    st.timedeltas(min_value=timedelta(days=-3), max_value=timedelta(days=3)),
    st.timedeltas(min_value=timedelta(minutes=-5), max_value=timedelta(minutes=5)),
).map(lambda away: SENT_AT + away)
in_some_zone = st.builds(lambda time, zone: time.astimezone(zone), times, zones)
emails = st.sampled_from(["jan@example.org", "Jan@example.org", "piet@example.org", "jan@example.com"])
days = st.sampled_from([FROM, UNTIL, FROM + timedelta(days=1)])
doubts = st.builds(
    doubt,
    email=emails,
    certification_id=st.integers(7, 9),
    valid_from=days,
    valid_until=st.none() | days,
    sent_at=in_some_zone,
)
certificates = st.builds(
    listed,
    id=st.integers(1, 5),
    certification_id=st.integers(7, 9),
    valid_from=days,
    valid_until=st.none() | days,
    created_at=st.none() | in_some_zone,
    user=st.none() | emails.map(lambda email: User(email=email)),
)
pages = st.lists(certificates, max_size=6, unique_by=lambda certificate: certificate.id)
known_ids = st.sets(st.integers(1, 5), max_size=3)


@given(doubts, pages, known_ids)
def test_what_is_found_has_that_employee_and_time(missing: InDoubt, page: list[Certificate], known: set[int]) -> None:
    found = find(missing, page, known)

    if isinstance(found, Certificate):
        assert found in page
        assert found.id not in known
        assert found.user is not None
        assert found.user.email.lower() == missing.email.lower()
        assert found.certification_id == missing.certification_id
        assert (found.valid_from, found.valid_until) == (missing.valid_from, missing.valid_until)
        assert found.created_at is not None
        assert found.created_at >= missing.sent_at - timedelta(minutes=2)


@given(doubts, pages, known_ids, st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30)), zones)
def test_an_equal_certificate_is_never_overlooked(
    missing: InDoubt, page: list[Certificate], known: set[int], later: timedelta, zone: timezone
) -> None:
    ours = Certificate(
        id=77,
        certification_id=missing.certification_id,
        valid_from=missing.valid_from,
        valid_until=missing.valid_until,
        created_at=(missing.sent_at + later).astimezone(zone),
        user=User(email=missing.email.upper()),
    )

    found = find(missing, [*page, ours], known)

    assert found == ours or isinstance(found, Unclear)


@given(doubts, certificates, st.sets(st.sampled_from(["valid_until", "created_at", "user"])))
def test_missing_fields_never_turn_ours_into_another(
    missing: InDoubt, certificate: Certificate, left_out: set[str]
) -> None:
    """If "not stored" followed from a missing field, the certificate would be sent twice."""
    if not isinstance(find(missing, [certificate]), Certificate):
        return

    nothing: dict[str, Any] = dict.fromkeys(left_out)
    less = attrs.evolve(certificate, **nothing)

    assert find(missing, [less]) is not None


@given(doubts, pages, known_ids, st.randoms(use_true_random=False))
def test_the_order_of_a_list_does_not_matter(
    missing: InDoubt, page: list[Certificate], known: set[int], random: Any
) -> None:
    shuffled = list(page)
    random.shuffle(shuffled)

    def verdict(certificates: Sequence[Certificate]) -> object:
        found = find(missing, certificates, known)
        return found.created_at if isinstance(found, Certificate) else type(found)

    assert verdict(page) == verdict(shuffled)


@given(doubts, pages)
def test_everything_that_can_be_ours_is_asked_for(missing: InDoubt, page: list[Certificate]) -> None:
    """The server filters the list by the day of creation in its own time zone."""
    for certificate in page:
        if find(missing, [certificate]) is not None and certificate.created_at is not None:
            for hours in (-12, 0, 14):
                day = certificate.created_at.astimezone(timezone(timedelta(hours=hours))).date()
                assert day >= listed_from(missing)
