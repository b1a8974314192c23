"""A deployment folder: read, verified, and resolved against a device config to plans.

Deliberately not here: signatures. A local folder runs as unsigned and says so.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge.config import Binding, BindingsSection, DeviceConfig, InferenceSection
from edge.contracts.abi import ABI_MAJOR, ABI_MINOR
from edge.contracts.frame import PixelFormat
from edge.contracts.parameters import Finding, Names, findings
from edge.contracts.plan import (
    ActionGrant,
    CropPlan,
    DriftPlan,
    GuestPlan,
    ImagePlan,
    ModelPlan,
    Overflow,
    PipelinePlan,
    PluginPlan,
    RefinePlan,
    ScoreOf,
    SignalGrant,
    TensorSpec,
    merged_classes,
)
from edge.contracts.verdict import DeploymentRef, Kind
from edge.deployment import files, pins
from edge.deployment.card import Card, Tensor
from edge.deployment.manifest import Guest, Manifest, Model, Pipeline, Refine
from edge.deployment.pins import MANIFEST, MAX_GUEST_BYTES, MAX_TEXT_BYTES
from edge.deployment.rules import DriftRule
from edge.deployment.schema import parse
from edge.errors import ConfigError, DeploymentError, IncompatibleError
from edge.mqtt.bound import is_ours, reserved
from edge.mqtt.topics import matches, overlap
from edge.wasm.section import parameter_schema

MAX_BATCH: Final = 64
"""Crops that a second model judges in one run."""
MAX_CLASSES: Final = 1_000
"""As many as one card may name."""

ENGINES: Final = "engines"
"""Below storage.path: what providers compiled from models, kept for the next start."""


@dataclass(frozen=True, slots=True)
class LoadedDeployment:
    """A deployment whose every pinned file was found to be the pinned one.

    Attributes:
        root: Its folder, absolute.
        digest: SHA-256 of the manifest's bytes: through the pins, of everything.
        cards: The model cards, by their paths below the folder.
        signed: Whether it came from a repository.
    """

    root: Path
    manifest: Manifest
    digest: str
    cards: dict[str, Card]
    signed: bool = False

    def as_signed(self) -> "LoadedDeployment":
        """The same, as a repository vouches for it."""
        return replace(self, signed=True)

    @property
    def ref(self) -> DeploymentRef:
        """How verdicts name this deployment."""
        section = self.manifest.deployment
        return DeploymentRef(section.name, section.revision, self.digest, self.signed)


def load_folder(path: Path) -> LoadedDeployment:
    """Read a deployment folder and verify every file that it pins.

    Raises:
        UntrustedError: A file is not the pinned one.
        IncompatibleError: It needs a newer guest ABI than this host has.
        IncompatibleError: A guest's schema of its parameters is broken.
        DeploymentError: The manifest, a card or a file is missing or unsound, or parameters are not
            what their guest's schema says.
    """
    root = path.absolute()
    content = files.read(root, MANIFEST, MAX_TEXT_BYTES)
    manifest = parse(content, Manifest, str(root / MANIFEST))
    _check_abi(root, manifest)
    cards = {
        model.card.path: _load_card(root, model)
        for pipeline in manifest.pipelines.values()
        for _, model in pipeline.models
    }
    for pin in (*pins.of_manifest(manifest), *pins.of_cards(manifest, cards)):
        files.verify(root, pin.path, pin.sha256, pin.max_bytes)
    _check_cascades(root, manifest, cards)
    _check_parameters(root, manifest, cards)
    return LoadedDeployment(root, manifest, hashlib.sha256(content).hexdigest(), cards)


def plans(deployment: LoadedDeployment, config: DeviceConfig) -> tuple[PipelinePlan, ...]:
    """Resolve a deployment against a device config, one plan for each pipeline.

    Raises:
        ConfigError: The device binds a logical name to no usable topic, or leaves no time.
    """
    found = tuple(
        _plan(deployment, name, pipeline, config)
        for name, pipeline in deployment.manifest.pipelines.items()
    )
    check_topics(config.bindings)
    return found


def _check_abi(root: Path, manifest: Manifest) -> None:
    major, minor = manifest.deployment.abi_version
    if major != ABI_MAJOR or minor > ABI_MINOR:
        raise IncompatibleError(
            f"{root / MANIFEST}: deployment.abi is {manifest.deployment.abi}; this host offers "
            f"{ABI_MAJOR}.{ABI_MINOR} (update the runtime, or build the guests for this ABI)"
        )


def _check_cascades(root: Path, manifest: Manifest, cards: dict[str, Card]) -> None:
    """Hold each second model to what a cascade needs of it: a bounded batch, and known classes."""
    wrong = [
        f"pipelines.{name}.refine.{finding}"
        for name, pipeline in manifest.pipelines.items()
        if pipeline.refine is not None
        for finding in _wrong_cascade(
            pipeline.refine, cards[pipeline.model.card.path], cards[pipeline.refine.model.card.path]
        )
    ]
    if wrong:
        raise DeploymentError(f"{root / MANIFEST}: {'; '.join(wrong)}")


def _wrong_cascade(refine: Refine, first: Card, second: Card) -> Iterator[str]:
    tensors = (*second.inputs, *second.outputs)
    batch = tensors[0].shape[0]
    for tensor in tensors:
        if not tensor.shape[1:] or tensor.shape[0] != batch:
            yield (
                f"model: {refine.model.card.path} says {tensor.name} {list(tensor.shape)}; the "
                "first dimension of every tensor must be the batch, and of equal length (export "
                "the model for a batch of crops, such as 8)"
            )
    if batch > MAX_BATCH:
        yield (
            f"model: {refine.model.card.path} judges {batch} crops in one run, at most "
            f"{MAX_BATCH} may be: the deadline is looked at between them"
        )
    for name in refine.drop:
        if name not in second.model.classes:
            yield (
                f"drop: {name!r} is no class of {second.model.name}, which has "
                f"{', '.join(second.model.classes)}"
            )
    classes = len(merged_classes(first.model.classes, second.model.classes, refine.drop))
    if classes > MAX_CLASSES:
        yield f"model: the two models have {classes} classes, at most {MAX_CLASSES} may be"


def _check_parameters(root: Path, manifest: Manifest, cards: dict[str, Card]) -> None:
    """Hold parameters to the schemas that guests carry: nothing is compiled, nothing has run."""
    wrong = [
        f"pipelines.{name}.{role}.{finding}"
        for name, pipeline in manifest.pipelines.items()
        for role, guest in pipeline.guests
        for finding in _wrong_parameters(root, guest, _names(role, pipeline, cards))
    ]
    if wrong:
        raise DeploymentError(f"{root / MANIFEST}: {'; '.join(wrong)}")


def _wrong_parameters(root: Path, guest: Guest, names: Names) -> tuple[Finding, ...]:
    wasm = files.read(root, guest.path, MAX_GUEST_BYTES, guest.sha256)
    schema = parameter_schema(wasm, str(root / guest.path))
    return () if schema is None else findings(schema, guest.parameters, names)


def _names(role: str, pipeline: Pipeline, cards: dict[str, Card]) -> Names:
    """The names that the guest of a role finds in its configuration."""
    first, refine = cards[pipeline.model.card.path], pipeline.refine
    card, classes = first, first.model.classes
    if refine is not None:
        second = cards[refine.model.card.path]
        if role.startswith("refine."):
            card, classes = second, second.model.classes
        elif role == "decide":
            classes = merged_classes(classes, second.model.classes, refine.drop)
    return Names(
        classes=classes,
        signals=tuple(grant.name for grant in pipeline.signals),
        actions=tuple(grant.name for grant in pipeline.actions),
        inputs=tuple(tensor.name for tensor in card.inputs),
        outputs=tuple(tensor.name for tensor in card.outputs),
    )


def _load_card(root: Path, model: Model) -> Card:
    pin = model.card
    content = files.read(root, pin.path, MAX_TEXT_BYTES, pin.sha256)
    return parse(content, Card, str(root / pin.path))


def _plan(
    deployment: LoadedDeployment, name: str, pipeline: Pipeline, config: DeviceConfig
) -> PipelinePlan:
    _check_bindings(deployment, name, pipeline, config)
    if config.deadlines.margin_ms >= pipeline.budget_ms:
        raise ConfigError(
            "deadlines.margin_ms",
            f"is {config.deadlines.margin_ms}, and pipeline {name!r} has a budget of "
            f"{pipeline.budget_ms} ms: every frame would get the fail-safe at once",
            "lower the margin",
        )
    return PipelinePlan(
        name=name,
        deployment=deployment.ref,
        source=pipeline.source,
        reference=pipeline.reference or "",
        reference_slots=pipeline.reference_slots if pipeline.reference else 0,
        budget_ms=pipeline.budget_ms,
        fail_safe=Kind(pipeline.fail_safe),
        overflow=Overflow(pipeline.overflow),
        queue_frames=pipeline.queue_frames,
        image=ImagePlan(
            PixelFormat(pipeline.image.format), pipeline.image.max_width, pipeline.image.max_height
        ),
        model=_model_plan(deployment, f"pipelines.{name}.model", pipeline.model, config),
        preprocess=_finder_plan(deployment.root, pipeline, pipeline.preprocess),
        postprocess=_finder_plan(deployment.root, pipeline, pipeline.postprocess),
        graph=pipeline.program.graph if pipeline.program else "",
        refine=_refine_plan(deployment, name, pipeline.refine, config),
        decide=_guest_plan(deployment.root, pipeline.decide),
        signals=tuple(SignalGrant(grant.name, grant.max_age_ms) for grant in pipeline.signals),
        actions=tuple(
            ActionGrant(grant.name, grant.max_per_minute, grant.max_ttl_ms, grant.revert)
            for grant in pipeline.actions
        ),
        drift=_drift_plan(deployment.manifest.drift),
    )


def _drift_plan(rule: DriftRule) -> DriftPlan:
    return DriftPlan(
        learn_frames=rule.learn_frames,
        window_frames=rule.window_frames,
        every_ms=round(rule.every_s * 1e3),
        max_distance=rule.max_distance,
        max_psi=rule.max_psi,
    )


def _check_bindings(
    deployment: LoadedDeployment, name: str, pipeline: Pipeline, config: DeviceConfig
) -> None:
    used = [pipeline.source, *([pipeline.reference] if pipeline.reference else [])]
    used += [grant.name for grant in pipeline.signals]
    used += [grant.name for grant in pipeline.actions]
    for logical in used:
        binding = config.bindings.find(logical)
        kind, _, rest = logical.partition(".")
        if binding is None:
            section = deployment.manifest.deployment
            raise ConfigError(
                f"bindings.{logical}",
                f"is missing: pipeline {name!r} of deployment {section.name!r} revision "
                f"{section.revision} uses {logical}, which is bound to no topic",
                f'add a line {rest} = "some/topic" under [bindings.{kind}] in the device config',
            )


def check_topics(bindings: BindingsSection) -> None:
    """Hold the topics of references and actions apart from what would be taken for something else.

    Raises:
        ConfigError: A camera's frames would be taken for references; or an action's topic is no
            single one, or it would be taken there for a word of a device or its cloud, or for an
            image.
    """
    for name, reference in bindings.reference.items():
        _check_reference(f"reference.{name}", reference, bindings)
    for name, binding in bindings.action.items():
        _check_action(f"action.{name}", binding.topic, bindings)


def _check_reference(logical: str, reference: Binding, bindings: BindingsSection) -> None:
    for name, camera in bindings.camera.items():
        if overlap(reserved(reference), reserved(camera)):
            raise ConfigError(
                f"bindings.{logical}",
                f"topic {reference.topic!r} and bindings.camera.{name} ({camera.topic!r}) take the "
                "same messages: frames would become the part that they are compared with",
                "give frames and references topics of their own",
            )


def _check_action(logical: str, topic: str, bindings: BindingsSection) -> None:
    where, remedy = f"bindings.{logical}", "name the topic that the gate or the light listens to"
    if {"+", "#"} & set(topic.split("/")):
        raise ConfigError(
            where,
            f"topic {topic!r} has a wildcard, and actions are published to one topic",
            "name the topic in full",
        )
    if is_ours(topic):
        raise ConfigError(
            where, f"topic {topic!r}: below edge/ devices and their cloud speak, no action", remedy
        )
    for kind, table in (("camera", bindings.camera), ("reference", bindings.reference)):
        for name, images in table.items():
            if matches(reserved(images), topic):
                raise ConfigError(
                    where,
                    f"topic {topic!r} is taken by bindings.{kind}.{name} ({images.topic!r}): each "
                    "action would come back as an image",
                    remedy,
                )


def _refine_plan(
    deployment: LoadedDeployment, name: str, refine: Refine | None, config: DeviceConfig
) -> RefinePlan | None:
    if refine is None:
        return None
    return RefinePlan(
        model=_model_plan(deployment, f"pipelines.{name}.refine.model", refine.model, config),
        preprocess=_guest_plan(deployment.root, refine.preprocess),
        postprocess=_guest_plan(deployment.root, refine.postprocess),
        crop=CropPlan(refine.crop.margin, refine.crop.min_side_px, refine.crop.square),
        max_crops=refine.max_crops,
        score=ScoreOf(refine.score),
        drop=refine.drop,
        min_score=refine.min_score,
        drop_unnamed=refine.unnamed == "drop",
    )


def _model_plan(
    deployment: LoadedDeployment, place: str, model: Model, config: DeviceConfig
) -> ModelPlan:
    card = deployment.cards[model.card.path]
    file = pins.model(place, model, card)
    return ModelPlan(
        path=str(deployment.root / file.path),
        sha256=file.sha256,
        classes=card.model.classes,
        inputs=_specs(card.inputs),
        outputs=_specs(card.outputs),
        provider=config.inference.provider,
        require=config.inference.require,
        options=dict(config.inference.options),
        threads=config.inference.threads,
        spinning=config.inference.spinning,
        plugin=plugin_plan(config.inference),
        engines=str(config.storage.path.absolute() / ENGINES),
    )


def plugin_plan(inference: InferenceSection) -> PluginPlan | None:
    """The plug-in that the config names, if it names one."""
    plugin = inference.plugin
    return PluginPlan(str(plugin.library.absolute()), plugin.device) if plugin else None


def _specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each.name, each.dtype, each.shape) for each in tensors)


def _finder_plan(root: Path, pipeline: Pipeline, guest: Guest | None) -> GuestPlan:
    """The plan of `preprocess` or `postprocess`: of the guest, or the program in its place."""
    if guest is not None:
        return _guest_plan(root, guest)
    program = pipeline.program
    assert program is not None, "checked when the manifest was read"
    return GuestPlan(
        path=str(root / program.path),
        sha256=program.sha256,
        memory_mib=program.memory_mib,
        call_ms=program.call_ms,
        state_bytes=0,
    )


def _guest_plan(root: Path, guest: Guest) -> GuestPlan:
    return GuestPlan(
        path=str(root / guest.path),
        sha256=guest.sha256,
        memory_mib=guest.memory_mib,
        call_ms=guest.call_ms,
        parameters=guest.parameters,
        fuel=guest.fuel,
        fresh=guest.instance == "frame",
        state_bytes=guest.state_bytes,
        log_lines_per_minute=guest.log_lines_per_minute,
    )
