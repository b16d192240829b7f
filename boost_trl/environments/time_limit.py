"""A limit on how long a piece of code may take that cannot be asked to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float | None, what: str) -> Iterator[None]:
    """Raise in the block once it has taken that long.

    It works by the signal SIGALRM, which ends waiting (for a server, a lock or a process) and Python code, on the main thread and where
    there is such a signal; elsewhere, and inside of compiled code, nothing is limited. Whoever has set an alarm already keeps it.

    Args:
        seconds (`float`, *optional*): the limit; `None` for none.
        what (`str`): what the message calls the block.

    Raises:
        TimeoutError: from within the block, again and again until it ends.
    """
    can_alarm = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not can_alarm or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def stop(signum, frame):
        raise TimeoutError(f"{what} took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    # Code that takes the error for one of its own and tries again is stopped again.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
