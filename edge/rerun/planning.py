"""The plan by which a record is judged again: the recorded deployment, with the wished changes.

Deployments are known by the digest of their manifest. They are looked for in the folders that were
named, in the state directory, where updates put them, and in what is shipped.
"""

import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edge import config
from edge.contracts.plan import GuestPlan, PipelinePlan, RefinePlan
from edge.contracts.verdict import DeploymentRef
from edge.deployment.folder import LoadedDeployment, load_folder, plans
from edge.errors import ConfigError, DeploymentError
from edge.ledger.record import Record
from edge.shipped import path as shipped

_SHIPPED: Final = "models/pcb/deployment"
_PATIENCE: Final = 20
"""Times the granted call time: a slow machine is no reason for another verdict."""
_CHANGE: Final = re.compile(
    r"pipelines\.(?P<pipeline>[\w-]+)\.((refine\.)?(preprocess|postprocess)|decide)"
    r"\.parameters\.\S+?"
    r"\s*=.*|signals\.(?P<signal>[\w.-]+?)\s*=.*",
    re.DOTALL,
)


class Changes:
    """What is to be other than recorded: `--set` of the command.

    Args:
        wishes: Each `pipelines.NAME.ROLE.parameters.KEY=VALUE` or `signals.NAME=NUMBER`.

    Attributes:
        wished: Whether anything is.
        signals: Values by logical name, in the place of the recorded ones.
        places: What the plans so far have for wishes: `pipelines.NAME` and `signals.NAME`.

    Raises:
        ConfigError: A wish is neither.
    """

    def __init__(self, wishes: Sequence[str] = ()) -> None:
        self.signals: dict[str, float] = {}
        self.wished = bool(wishes)
        self.places: set[str] = set()
        self._parameters: list[tuple[str, str]] = []
        for wish in wishes:
            match = _CHANGE.fullmatch(wish)
            if match is None:
                raise ConfigError(
                    "--set",
                    f"{wish!r} names neither a parameter nor a signal",
                    "expected pipelines.NAME.ROLE.parameters.KEY=VALUE or signals.NAME=NUMBER",
                )
            if match["signal"]:
                self.signals[match["signal"]] = _number(wish)
            else:
                self._parameters.append((match["pipeline"], wish))

    def applied(self, plan: PipelinePlan) -> PipelinePlan:
        """Return the plan with the wished parameters."""
        self.places |= {f"pipelines.{plan.name}", *(f"signals.{s.name}" for s in plan.signals)}
        document = _parameters(plan, ("preprocess", "postprocess", "decide"))
        if plan.refine is not None:
            document["refine"] = _parameters(plan.refine, ("preprocess", "postprocess"))
        wished = {"pipelines": {plan.name: document}}
        for pipeline, wish in self._parameters:
            if pipeline == plan.name:
                config.lay_over(wished, wish)
        return _each_guest(
            plan,
            lambda place, guest: msgspec.structs.replace(
                guest, parameters=_at(document, place)["parameters"]
            ),
        )

    def hold_to_places(self) -> None:
        """Refuse wishes that none of the plans had a place for; without plans nobody knows.

        Raises:
            ConfigError: One had none, so that nothing was other for it.
        """
        wanted = [f"pipelines.{pipeline}" for pipeline, _ in self._parameters]
        wanted += [f"signals.{name}" for name in self.signals]
        if self.places and (missed := [each for each in wanted if each not in self.places]):
            raise ConfigError(
                "--set",
                f"these records know no {', '.join(missed)}",
                f"they know {', '.join(sorted(self.places))}",
            )


class Deployments:
    """Where recorded deployments are found.

    Args:
        named: Folders that the caller named. Where there is one only, it is taken for records of
            other deployments, too, and every difference is told.
        state: The state directory.

    Raises:
        DeploymentError: A named folder is no sound deployment.
    """

    def __init__(self, named: Sequence[Path], state: Path) -> None:
        self._state = state
        self._named = [load_folder(folder) for folder in named]
        self._found: dict[str, LoadedDeployment | None] = {
            loaded.digest: loaded for loaded in self._named
        }

    def find(self, wanted: DeploymentRef) -> LoadedDeployment | None:
        """Return the deployment of a record, or None where it is not here."""
        if wanted.digest not in self._found:
            self._found[wanted.digest] = self._look(wanted.digest)
        found = self._found[wanted.digest]
        return self._named[0] if found is None and len(self._named) == 1 else found

    def _look(self, digest: str) -> LoadedDeployment | None:
        places = [
            *self._state.glob(f"deployments/{digest}"),
            *self._state.glob(f"*/deployments/{digest}"),
            shipped(_SHIPPED),
        ]
        for place in places:
            try:
                loaded = load_folder(place)
            except DeploymentError:
                continue  # an altered copy is not the recorded one
            if loaded.digest == digest:
                return loaded
        return None


def plan_of(
    deployment: LoadedDeployment, record: Record, provider: str = ""
) -> PipelinePlan | None:
    """Return the plan of the record's pipeline, as it was run; None where there is no such one.

    Args:
        deployment: Where it is looked for.
        record: Says provider, threads and options.
        provider: Another one to run on; empty: the recorded one.
    """
    if record.pipeline not in deployment.manifest.pipelines:
        return None
    runtime = record.runtime
    bindings: dict[str, dict[str, str]] = {}
    for pipeline in deployment.manifest.pipelines.values():
        names = [pipeline.source, pipeline.reference or ""]
        names += [grant.name for grant in pipeline.signals]
        names += [grant.name for grant in pipeline.actions]
        for name in filter(None, names):
            kind, _, rest = name.partition(".")
            bindings.setdefault(kind, {})[rest] = f"replay/{name}"
    inference: dict[str, Any] = {"threads": runtime.threads or 1, "options": runtime.options}
    if provider or record.provider:
        inference["provider"] = provider or record.provider
    if provider and provider != record.provider:
        inference["options"] = {}
    settings = config.parse(
        {"bindings": bindings, "inference": inference, "deadlines": {"margin_ms": 1}}, "replay"
    )
    (plan,) = (each for each in plans(deployment, settings) if each.name == record.pipeline)
    return _each_guest(
        plan,
        lambda _, guest: msgspec.structs.replace(guest, call_ms=guest.call_ms * _PATIENCE),
    )


def _each_guest(
    plan: PipelinePlan, change: Callable[[tuple[str, ...], GuestPlan], GuestPlan]
) -> PipelinePlan:
    """The plan with each guest changed; `change` is told its place in the manifest."""
    refine = plan.refine
    if refine is not None:
        refine = msgspec.structs.replace(
            refine,
            preprocess=change(("refine", "preprocess"), refine.preprocess),
            postprocess=change(("refine", "postprocess"), refine.postprocess),
        )
    return msgspec.structs.replace(
        plan,
        preprocess=change(("preprocess",), plan.preprocess),
        postprocess=change(("postprocess",), plan.postprocess),
        decide=change(("decide",), plan.decide),
        refine=refine,
    )


def _parameters(plan: PipelinePlan | RefinePlan, roles: tuple[str, ...]) -> dict[str, Any]:
    return {role: {"parameters": copy.deepcopy(getattr(plan, role).parameters)} for role in roles}


def _at(document: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for key in place:
        document = document[key]
    return document


def _number(wish: str) -> float:
    try:
        return float(wish.partition("=")[2])
    except ValueError:
        raise ConfigError("--set", f"{wish!r}: a signal is a number") from None
