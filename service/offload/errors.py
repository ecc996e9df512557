"""Why a task has no result: what `Offload.submit` and `Offload.start` raise.

The whole list, and all that a handler need know of the offload's failures.
"""


class OffloadError(Exception):
    """The task has no result; the subclass says why."""


class RejectedError(OffloadError):
    """Admission refused the task; nothing was started. `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"no room; try again in {retry_after} s")
        self.retry_after = retry_after


class TooLargeError(OffloadError):
    """The arguments alone are above the budget of bytes: they never fit, however often they are sent."""


class ExpiredError(OffloadError):
    """The deadline passed before the task was done."""


class UnwantedError(OffloadError):
    """The caller had gone when the task's turn came; it was not started."""


class WorkerLostError(OffloadError):
    """The worker died under the task, on each of its attempts, or was stopped."""


class QuarantinedError(OffloadError):
    """The same call has killed workers; it was not started, and will not be for a while."""


class WorkerStartError(OffloadError):
    """A worker could not be started at all."""


class WorkError(OffloadError):
    """The function raised. Carries the type, message and traceback as text; see `worker_main.Failure`."""

    def __init__(self, summary: str, details: str) -> None:
        super().__init__(summary, details)
        self.summary = summary
        self.details = details

    def __str__(self) -> str:
        """The exception's type and message."""
        return self.summary
