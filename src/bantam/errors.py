"""The two ways Bantam fails on purpose; both say what is wrong and how to mend it."""


class BantamError(Exception):
    """A failure with a mend. `str(error)` is both, on two lines."""

    exit_code = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(f"{message}\n  mend: {mend}" if mend else message)
        self.message = message
        self.mend = mend


class BadInput(BantamError):
    """The recipe, the data, a file or the command line is wrong: exit code 2, nothing was spent."""

    exit_code = 2


class JobFailed(BantamError):
    """The work itself failed (no memory, no disk, the runtime died): exit code 1."""
