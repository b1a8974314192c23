"""Detector and classifier as the deployment has them behind each other, for evaluation. No torch.

Both models judge each board once; how their words are merged is then a matter of arithmetic, and is
the runtime's own (`edge.pipeline.refine.Merge`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.contracts.plan import GuestPlan, ModelPlan, RefinePlan, ScoreOf
from edge.pipeline.refine import Merge
from edge.wasm.roles import DEFECT
from models.pcb.recipe.data import CLASSES as KINDS
from models.pcb_kinds.recipe.data import BATCH, CLASSES, CROP, NONE, Cutter, findings
from models.recipe.session import outputs

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

    from models.recipe.frames import FramePath

MAX_CROPS = 32
"""What the deployment's manifest says; a test holds the two together."""
_NOT_HERE = GuestPlan("", "", 1, 1)


@dataclass(frozen=True)
class Setting:
    """How a cascade is set.

    Attributes:
        floor: score from which the detector's findings are looked at.
        score: whose score a finding has.
        sure: probability from which `none` drops a finding; below it the next kind is taken.
    """

    floor: float
    score: ScoreOf
    sure: float

    def answer(self, probabilities: NDArray[np.float32]) -> tuple[int, float]:
        """What the guest `topk` says of one crop, with `k = 2` and a score of `none` alone."""
        first, second = np.argsort(-probabilities, kind="stable")[:2]
        unsure = first == CLASSES.index(NONE) and probabilities[first] < np.float32(self.sure)
        label = int(second if unsure else first)
        return label, float(probabilities[label])

    def merge(self) -> Merge:
        """The runtime's arithmetic, so set."""
        model = ModelPlan("", "", CLASSES, (), ())
        return Merge(
            KINDS,
            RefinePlan(model, _NOT_HERE, _NOT_HERE, CROP, MAX_CROPS, self.score, (NONE,)),
        )


@dataclass(frozen=True)
class Seen:
    """What both models say of one board.

    Attributes:
        found: float32 [n, 6], the detector's findings down to its floor, strongest first.
        probabilities: float32 [m, 7], the classifier's on the first of them.
    """

    found: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def merged(self, setting: Setting) -> NDArray[np.float32]:
        """The cascade's findings, float32 [k, 6], strongest first."""
        looked = self.found[self.found[:, 4] >= setting.floor]
        defects = np.zeros(len(looked), DEFECT)
        for column, name in enumerate(("x0", "y0", "x1", "y1", "score")):
            defects[name] = looked[:, column]
        defects["label"] = looked[:, 5]
        answers = [setting.answer(row) for row in self.probabilities[: len(looked)]]
        merged = setting.merge()(defects, answers)
        return np.array(merged.tolist(), np.float32).reshape(-1, 6)


class Cascade:
    """Both models, for one thread.

    Args:
        detector: session of `models/pcb`.
        classifier: session of this model.
        path: of this model's contract.
    """

    def __init__(
        self, detector: ort.InferenceSession, classifier: ort.InferenceSession, path: FramePath
    ) -> None:
        self._detector, self._classifier = detector, classifier
        self._cut = Cutter(path)

    def __call__(self, pair: NDArray[np.uint8]) -> Seen:
        """Judge a pair, uint8 [2, 640, 640]."""
        found = findings(self._detector, pair)
        crops = self._cut(pair, found[:MAX_CROPS])
        answers = [np.zeros((0, len(CLASSES)), np.float32)]
        for start in range(0, len(crops), BATCH):
            answers += outputs(self._classifier, crops[start : start + BATCH])
        return Seen(found, np.concatenate(answers))
