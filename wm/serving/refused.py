"""A request that gets no plan."""

from __future__ import annotations

from http import HTTPStatus

from wm.config.errors import UserError


class Refused(UserError):
    """Why, in the one line that the client reads.

    Args:
        status: of the HTTP answer.
        line: what, where, and what was expected.
        headers: of the answer, beside the usual ones.
    """

    def __init__(self, status: HTTPStatus, line: str, **headers: str) -> None:
        super().__init__(line)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def malformed(line: str) -> Refused:
    """400: the request itself is at fault, and asking again would not help."""
    return Refused(HTTPStatus.BAD_REQUEST, line)
