"""The one exception type that means "the input is wrong", as opposed to a defect of this program."""


class UserError(Exception):
    """Bad input: the message is one line saying what was wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2 (:mod:`dfssd.cli`).
    """
