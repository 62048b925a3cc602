"""The one exception type that a user is meant to read."""


class UserError(ValueError):
    """Something that the user can mend.

    The message is one line: what is wrong, then the remedy. The command line prints it without a
    traceback and exits with status 1.
    """
