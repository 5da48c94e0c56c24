"""Today and now, in UTC; those of `SOURCE_DATE_EPOCH` if it is set, so that builds can be repeated."""

import datetime
import os


def now() -> datetime.datetime:
    """The time.

    Raises:
        ValueError: `SOURCE_DATE_EPOCH` is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return datetime.datetime.now(datetime.UTC)
    try:
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"SOURCE_DATE_EPOCH must be whole seconds since 1970, got {epoch!r}") from None


def today() -> str:
    """The date, ISO 8601."""
    return now().date().isoformat()
