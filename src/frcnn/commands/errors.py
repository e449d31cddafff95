"""How a verb ends early."""

from __future__ import annotations


class CommandError(Exception):
    """Ends a command with a sentence and an exit code.

    Attributes:
        code: 1 the run failed, 2 bad usage, configuration or data.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
