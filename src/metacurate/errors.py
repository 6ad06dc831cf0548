"""The exceptions that end a command in one line, without a traceback, and what to say of others."""


class UserError(Exception):
    """A problem that the user can mend (exit code 2); the message says what, where, what to do."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or else its type's name."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


class Stopped(Exception):
    """A run that ended at a good place because signal ``number`` asked it to (128 + number)."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message, number)
        self.message, self.number = message, number
