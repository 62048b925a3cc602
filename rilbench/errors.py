"""What a user is meant to read: one type of exception, one of warning."""


class UserError(ValueError):
    """Something that the user can mend.

    The message is one line: what is wrong, then the remedy. The command line prints it without a
    traceback and exits with status 1.
    """


class UserNotice(UserWarning):
    """Something that the user should know; the command line prints it in one line and goes on."""
