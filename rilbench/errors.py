"""Messages for the user: one type of exception, one type of warning."""


class UserError(ValueError):
    """Something that the user can fix.

    The message is one line: what is wrong; the remedy. The command line prints it without a
    traceback and exits with status 1.
    """


class UserNotice(UserWarning):
    """Something that the user should know; the command line prints it in one line and goes on."""
