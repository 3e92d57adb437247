"""A lock that is given in the order in which it was asked for.

A text that is written takes the lock of its model for each token. With an ordinary lock the thread that lets go may take it again before
one that waits has woken up, so that of two texts one stands still until the other is finished. The thread that holds it may take it again.
"""

from collections import deque
from threading import Lock, get_ident
from types import TracebackType

__all__ = ["Turns"]


class Turns:
    """A reentrant lock, first come, first served."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._holder: int | None = None
        self._depth = 0
        self._queue: deque[tuple[int, Lock]] = deque()

    @property
    def wanted(self) -> bool:
        """Whether another thread holds it or waits for it."""
        with self._guard:
            return bool(self._queue) or self._holder not in (None, get_ident())

    def __enter__(self) -> "Turns":
        me, gate = get_ident(), Lock()
        with self._guard:
            if self._holder in (None, me):
                self._holder, self._depth = me, self._depth + 1
                return self
            gate.acquire()
            self._queue.append((me, gate))
        gate.acquire()  # until the one before hands over
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        with self._guard:
            self._depth -= 1
            if self._depth:
                return
            if not self._queue:
                self._holder = None
                return
            # it is handed over and never free meanwhile, so that nobody can come between
            self._holder, gate = self._queue.popleft()
            self._depth = 1
            gate.release()
