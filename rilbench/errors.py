"""Messages for the user: exceptions, and one type of warning."""


class UserError(ValueError):
    """Something that the user can fix.

    The message is one line: what is wrong; the remedy. The command line prints it without a
    traceback and exits with status 1.
    """


class UserNotice(UserWarning):
    """Something that the user should know; the command line prints it in one line and goes on."""


class InvalidQuestionError(ValueError):
    """An invalid entry of a file, or its image. The caller adds the file and the line."""
