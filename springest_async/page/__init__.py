"""The status page: one small page that shows all migrations of a journal, and lets a person answer."""

from springest_async.page.server import StatusPage

__all__ = ["StatusPage"]
