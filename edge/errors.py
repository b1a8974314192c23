"""Every error that the runtime raises on purpose: one class for each distinct reaction.

Whatever is not an `EdgeError` is a bug: it ends its process, and the supervisor (or systemd)
starts the next one.
"""

from pathlib import Path


class EdgeError(Exception):
    """The root: a condition that the runtime foresaw and can name."""


class ConfigError(EdgeError):
    """A configuration cannot be used: exit 78, do not restart.

    Args:
        where: File, and where known the key, that is at fault.
        problem: What was expected and what was found.
        remedy: What the operator can do about it.
    """

    def __init__(self, where: str | Path, problem: str, remedy: str = "") -> None:
        self.where = str(where)
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{where}: {problem}" + (f" ({remedy})" if remedy else ""))


class FrameError(EdgeError):
    """One frame cannot be judged: its fail-safe verdict is sent, it is counted, the line goes on.

    Attributes:
        reason: The stable reason code of the verdict, one of `edge.contracts.verdict.Reason`.
    """

    reason = "inference-error"


class DecodeError(FrameError):
    """The payload is not an image that this pipeline accepts."""

    reason = "decode-error"


class GuestError(FrameError):
    """A guest trapped, overstepped its grant, or answered something the ABI does not allow."""

    reason = "guest-trap"


class GuestBudgetError(GuestError):
    """A guest call took longer than the time granted to it, and was interrupted."""

    reason = "guest-budget"


class InferenceError(FrameError):
    """ONNX Runtime could not run the model on this frame."""

    reason = "inference-error"


class DeploymentError(EdgeError):
    """A deployment cannot be activated: the active one is untouched."""


class UntrustedError(DeploymentError):
    """A file is not the one that was pinned or signed."""


class IncompatibleError(DeploymentError):
    """A guest, model or manifest asks for what this host does not offer."""


class TrialError(DeploymentError):
    """A deployment failed its proof on this device."""


class TransportError(EdgeError):
    """The network or the broker failed: retry, jittered and bounded."""


class AbsentError(TransportError):
    """A repository has no file of that name."""


class StorageError(EdgeError):
    """Durable storage failed: backpressure, never a silent drop."""


class MediumError(StorageError):
    """The medium is full, or fails: nobody's fault, and it may pass by itself.

    At the start: exit 1, and be started again, where another `StorageError` is exit 78.
    """


class DamagedError(StorageError):
    """A ledger cannot be read as it was written: it is evidence, and nothing is added to it."""


class ProofError(EdgeError):
    """A signed note, a checkpoint or a proof does not hold: nothing may be concluded from it."""
