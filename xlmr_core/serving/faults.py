"""What can be wrong with a request, by kinds; a dialect says which status and which words its clients know."""

from __future__ import annotations

from collections.abc import Mapping

from xlmr_core.errors import InputError, TooLongError, XLMRError

__all__ = ["STATUSES", "Fault", "fault_of"]

# The usual status of each kind.
STATUSES: Mapping[str, int] = {
    "malformed": 400,  # no JSON
    "unauthorized": 401,
    "not_found": 404,  # an address, or a model
    "method": 405,
    "slow": 408,  # the body did not come
    "too_large": 413,  # a body, or a list of texts
    "too_long": 413,  # a text, or all of them together
    "media": 415,
    "invalid": 422,  # JSON that means nothing here
    "unable": 424,  # the model has not what it needs
    "overloaded": 429,
    "broken": 500,
    "stopping": 503,
    "late": 504,
}


class Fault(XLMRError):
    """A request that is not answered.

    Args:
        kind: of ``STATUSES``.
        message: what was expected, what came, what to do.
        param: the field of the body that it is about, if it is about one.
        headers: of the answer.
    """

    def __init__(
        self, kind: str, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        assert kind in STATUSES
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})


def fault_of(error: XLMRError) -> Fault:
    """What an error of a task means to a client."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, TooLongError):
        return Fault("too_long", str(error))
    return Fault("invalid" if isinstance(error, InputError) else "unable", str(error))
