"""What a deployment asks of itself: golden, shadow, canary, probation, and then drift.

Tables of the manifest. Their defaults suit a line with twenty parts a second; each deployment may
be stricter or looser, and what it asks is signed with it.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import Field

from edge.deployment.schema import Pinned, Strict

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ShadowRule(Strict):
    """How a candidate must judge beside the active deployment."""

    frames: int = Field(
        20, ge=0, le=100_000, description="Compared before it may become active; 0: no shadow."
    )
    min_agreement: Share = Field(0.9, description="Share of them with the same verdict.")
    max_more_actions: Share = Field(
        0.1, description="Share of them at which it wishes more actions than the active one."
    )
    max_latency_ratio: float = Field(
        2.0, ge=0.1, le=100, description="Median time of its stages over the active one's."
    )
    max_wait_s: int = Field(
        600, ge=1, le=604_800, description="A line without frames for so long is not waited for."
    )


class CanaryRule(Strict):
    """Which parts a candidate judges, and publishes, before it may judge all of them.

    It is held to the limits of `[probation]` meanwhile.
    """

    frames: int = Field(
        0, ge=0, le=1_000_000, description="Verdicts that it lasts, of each pipeline; 0: no canary."
    )
    share: float = Field(0.1, gt=0, le=0.5, description="Share of the parts that it judges.")
    max_s: int = Field(3_600, ge=1, le=604_800, description="Seconds that it lasts at the most.")

    def includes(self, digest: str, subject: str) -> bool:
        """Whether the canary judges a part; for one part and one deployment always the same.

        Args:
            digest: Of the candidate's manifest, so that each release has other parts.
            subject: The part's id, or the frame's where it names no part.
        """
        drawn = hashlib.sha256(f"{digest}/{subject}".encode()).digest()
        return int.from_bytes(drawn[:6], "big") < self.share * (1 << 48)


class ProbationRule(Strict):
    """How a candidate must do while it is active and watched."""

    frames: int = Field(200, ge=0, le=1_000_000, description="Verdicts that probation lasts.")
    max_s: int = Field(3_600, ge=1, le=604_800, description="Seconds that it lasts at the most.")
    max_overrun_share: Share = Field(0.01, description="Verdicts for which it may be late.")
    max_fault_share: Share = Field(
        0.01, description="Verdicts that a trap, a budget, the model or a lost worker may cost."
    )
    max_workers_lost: int = Field(
        1, ge=0, le=1_000, description="Times that a pipeline's worker may be lost."
    )
    max_reject_change: Share = Field(
        0.1, description="How far the share of rejects and reviews may move from its predecessor's."
    )
    max_score_shift: Share = Field(
        0.3,
        description="Distance of the score's distribution from its predecessor's, by Kolmogorov "
        "and Smirnov.",
    )


class DriftRule(Strict):
    """How a deployment is watched for drift once it runs: lamps age, lenses foul, cameras shift."""

    learn_frames: int = Field(
        600, ge=0, le=1_000, description="Looked at to learn what is usual; 0: it is not watched."
    )
    window_frames: int = Field(
        300, ge=20, le=1_000, description="The newest looks, which are compared with that."
    )
    every_s: float = Field(
        3.0,
        ge=0,
        le=3_600,
        allow_inf_nan=False,
        description="At most one frame in so many seconds is looked at; 0: each.",
    )
    max_distance: float = Field(
        3.0,
        ge=0.5,
        le=100,
        allow_inf_nan=False,
        description="How far the usual picture may move, in spreads of the pictures learnt.",
    )
    max_psi: float = Field(
        0.1,
        ge=0.01,
        le=100,
        allow_inf_nan=False,
        description="Population stability index that scores, verdicts and findings may have.",
    )


class Golden(Strict):
    """A frame whose verdict is known, judged on the device before anything else."""

    frame: Pinned
    reference: Pinned | None = None
    verdict: Literal["pass", "reject", "review"]
    score: Share | None = Field(None, description="The verdict's score; absent: any.")
    score_tolerance: Share = Field(0.02, description="How far it may differ on this provider.")
    defects: int | None = Field(None, ge=0, le=300, description="Number of findings; absent: any.")
