"""The one exception that a user's mistake or machine raises: one line, no traceback, exit code 2."""


class UserError(Exception):
    """A problem that the user can mend; its message says what, where and what to do, in one line."""
