"""From a rollout's orders to signed, numbered documents, in one transaction with the rollout's new state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.messages import Certificate, Desired, encode
from contracts.topics import certificate_topic, node_topic
from fleet.auditing.entries import Began, Happened, Withdrawn
from fleet.courses import Course
from fleet.enrolment import next_sequence
from fleet.rollouts.events import Assign, Assigned
from fleet.signing import Signing
from fleet.state import BundleRow, DesiredRow, NodeRow, State

Publications = dict[str, bytes]
"""Topic to retained payload."""
Beside = Callable[[State], None]
"""What else is written with a change, in one transaction with it."""

_MAX_ATTACHED_BYTES = 2 << 20


def nothing(_: State) -> None:
    """Nothing else."""


class Orders:
    """Synchronous, on the fleet's state thread. `clock` gives unix time, `ttl_s` how long a document allows updates."""

    def __init__(self, state: State, signing: Signing, clock: Callable[[], float], ttl_s: float) -> None:
        self._state = state
        self._signing = signing
        self._clock = clock
        self._ttl_s = ttl_s

    def commit(
        self,
        course: Course,
        orders: Sequence[Assign],
        others: Sequence[Course] = (),
        beside: Beside = nothing,
    ) -> Publications:
        """Stores what has become of a course, of `others` with it, and what `beside` writes, and what follows from it:
        all of it is on disk before any node hears of it. Where it fails, nothing is on disk, and the courses must be
        read again."""
        publications: Publications = {}
        model = course.rollout.plan.model
        with self._state.transaction():
            for order in orders:
                self._state.assign(order.node, model, order.digest)
                document = self._issue(order.node)
                publications[node_topic(order.node, "desired")] = document.document
                course.feed(Assigned(order.node, document.sequence))
            for digest in {order.digest for order in orders if order.digest}:
                publications |= self._certify(digest)
            for one in (course, *others):
                self._store(one)
            beside(self._state)
        for one in (course, *others):
            one.stored()
        return publications

    def _store(self, course: Course) -> None:
        self._state.put_course(course)
        if course.beginning is not None:
            self._state.log(Began(course.beginning))
        if course.journal:
            self._state.log(Happened(course.id, tuple(course.journal)))

    def withdraw(self, node: str, model: str) -> Publications:
        """Takes a model off one node. Raises FoothillError `not_found` when it does not have it."""
        if model not in self._state.assigned(node):
            raise FoothillError("not_found", f"{node} is assigned no model {model[:80]!r}.")
        with self._state.transaction():
            self._state.assign(node, model, "")
            document = self._issue(node)
            self._state.log(Withdrawn(node, model, document.sequence))
            return {node_topic(node, "desired"): document.document}

    def renew(self) -> Publications:
        """New documents, saying the same, for nodes whose document has less than half of its life left."""
        limit_s = self._clock() + self._ttl_s / 2
        aging = [row.node for row in self._state.desired() if row.expires_at_s < limit_s]
        with self._state.transaction():
            return {node_topic(node, "desired"): self._issue(node).document for node in aging}

    def standing(self) -> Publications:
        """Everything that should be retained at the broker now."""
        desired = {node_topic(row.node, "desired"): row.document for row in self._state.desired()}
        identities = dict(identity_of(node) for node in self._state.nodes())
        return identities | desired | self._signed(self._state.certificates())

    def _issue(self, node: str) -> DesiredRow:
        now_s = self._clock()
        models = self._state.assigned(node)
        sequence = next_sequence(self._state.desired_sequence(node), now_s)
        desired = Desired(node, sequence, now_s, now_s + self._ttl_s, models)
        signed = self._signing.sign(desired, self._attachments(models.values()))
        row = DesiredRow(node, sequence, desired.expires_at_s, encode(signed))
        self._state.put_desired(row)
        return row

    def _attachments(self, digests: Iterable[str]) -> dict[str, bytes]:
        """The manifests, as far as they fit into a message; a node fetches the others as signed targets."""
        attached: dict[str, bytes] = {}
        left = _MAX_ATTACHED_BYTES
        for bundle in map(self._state.bundle_by_digest, digests):
            if bundle is not None and len(bundle.manifest) <= left:
                attached[bundle.digest] = bundle.manifest
                left -= len(bundle.manifest)
        return attached

    def _certify(self, digest: str) -> Publications:
        """The bundle's own rules become the first certificates of their strata."""
        bundle = self._state.bundle_by_digest(digest)
        if bundle is None:
            return {}
        return self._signed(
            certificate
            for certificate in first_certificates(bundle, self._clock())
            if self._state.add_certificate(certificate)
        )

    def _signed(self, certificates: Iterable[Certificate]) -> Publications:
        return {certificate_topic(one.stratum): encode(self._signing.sign(one)) for one in certificates}


def identity_of(node: NodeRow) -> tuple[str, bytes]:
    """Topic and payload of a node's identity."""
    return node_topic(node.name, "identity"), node.identity


def first_certificates(bundle: BundleRow, now_s: float) -> list[Certificate]:
    """One for each artifact with a confidence rule."""
    manifest = manifests.decode(bundle.manifest)
    rules = [artifact.confidence for artifact in manifest.artifacts if artifact.confidence is not None]
    return [
        Certificate(
            stratum=rule.stratum,
            model=manifest.model,
            threshold=rule.threshold,
            epsilon=rule.epsilon,
            delta=rule.delta,
            n=rule.n,
            state="live",
            sequence=1,
            issued_at_s=now_s,
        )
        for rule in rules
    ]
