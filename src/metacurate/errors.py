"""The exception for what a user can mend: shown as one line, no traceback, exit code 2."""


class UserError(Exception):
    """A problem that the user can mend; the message says what, where and what to do."""
