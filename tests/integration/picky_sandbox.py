"""A sandbox that refuses certain people and answers 500 for certain certifications, whatever the order of the POSTs."""

from collections.abc import Collection
from typing import Any

import attrs

from springest_async.sandbox import Mishap
from springest_async.sandbox.certificates import Form, ValidationError
from springest_async.sandbox.server import _errors, _Outcome

from .command import HeldSandbox

__all__ = ["PickySandbox"]

_ALL = 10**9


@attrs.define(kw_only=True, eq=False)
class PickySandbox(HeldSandbox):
    """A sandbox whose answers depend on what is posted.

    Attributes:
        strangers: the email addresses that it does not know, whose certificates it rejects.
        silent: the certifications whose certificates it stores, and answers with 500.
        answers: how many POSTs it answers before it holds the others, as `HeldSandbox` does.
    """

    strangers: Collection[str] = ()
    silent: Collection[int] = ()
    answers: int = _ALL

    def _store(self, form: Form) -> Any:
        if form.fields.get("email") in self.strangers:
            unknown = ValidationError({"email": ["is not an employee of yours"]})
            return _Outcome(verdict="invalid", status=400, words=str(unknown), body=_errors(unknown))
        if form.fields.get("certification_id", "") in map(str, self.silent):
            scripted, self.mishap = self.mishap, lambda: Mishap.ERROR_AFTER_STORING
            try:
                return super()._store(form)
            finally:
                self.mishap = scripted
        return super()._store(form)
