"""How the exporters and the viewer say that a file or what is to be written is at fault."""


class ExportError(ValueError):
    """A file that cannot be read or written: a countable reason, and what to do in words."""

    def __init__(self, reason: str, message: str) -> None:
        """Refuse.

        Args:
            reason: `malformed`, `too_large`, `unsupported`, `not_finite` or `mismatch`.
            message: The file, what is wrong with it, and what to do.
        """
        super().__init__(f"{message} [{reason}]")
        self.reason, self.message = reason, message
