"""The errors that readers are meant to see."""


class BookError(Exception):
    """An error that its message explains whole: what was wrong, what was expected, what to do.

    All errors of the package derive from it that a reader can mend. `hqnn` ends with the message, and so does a cell of a
    notebook, below which IPython would otherwise show the whole way through the package.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ChapterError(BookError):
    """A chapter that cannot be found, run or written; the message says what to do."""


class SweepError(ChapterError):
    """A sweep that cannot be run as it is described, or where it should be; the message says what to do."""


class DataError(BookError):
    """A data set, or a request for part of one, that cannot be had; the message says what to do."""
