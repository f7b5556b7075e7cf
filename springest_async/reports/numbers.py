"""Numbers for people, as all commands and reports print them."""


def number(value: int) -> str:
    """Return a number with spaces between the thousands: ``19 997``."""
    return f"{value:,}".replace(",", " ")


def count(value: int, noun: str) -> str:
    """Return a number of things: ``1 row``, ``20 000 rows``."""
    return f"{number(value)} {noun}" if value == 1 else f"{number(value)} {noun}s"
