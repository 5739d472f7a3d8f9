"""Whether the outputs of a model are what a detector's head reads: told before the first request, not by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.errors import FoothillError
from contracts.manifest import Detector, Manifest, Postprocess, Preprocess

Shape = Sequence[int]
"""-1 for a size that is not known yet."""

_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_NO_NUMBERS = ("BOOL", "BYTES")


def check_declared(manifest: Manifest) -> None:
    """As far as the manifest tells. Raises FoothillError `bad_bundle`."""
    detector = manifest.postprocess.detector
    if detector is None:
        return
    for spec in manifest.outputs:
        if spec.name in read_of(manifest) and (
            spec.datatype in _NO_NUMBERS or (spec.datatype not in _FLOATS and spec.name != detector.classes)
        ):
            raise _unfit(manifest, f"output {spec.name!r} is {spec.datatype}, and boxes and scores are floats")
    check_shapes({spec.name: spec.shape for spec in manifest.outputs}, manifest)


def check_shapes(shapes: Mapping[str, Shape], manifest: Manifest) -> None:
    """Of outputs by name. Raises FoothillError `bad_bundle` that names the output, and what it should be."""
    head, detector, pre = manifest.postprocess, manifest.postprocess.detector, manifest.preprocess
    if detector is None or pre is None:
        return
    named = {name: shapes[name] for name in read_of(manifest)}
    fit = _Fit(manifest)
    if head.kind == "yolo":
        _check_yolo(fit, head.output, named, detector)
    elif head.kind == "ssd":
        _check_ssd(fit, named, detector)
    else:
        _check_nanodet(fit, named, detector, pre)
    fit.alike({f"rows of {name}": shape[0] for name, shape in named.items()}, -1)


def read_of(manifest: Manifest) -> tuple[str, ...]:
    """The outputs that the head makes its answer of, each once."""
    return read_by(manifest.postprocess)


def read_by(head: Postprocess) -> tuple[str, ...]:
    """The same, of a head alone."""
    detector = head.detector
    others = (*detector.boxes, *detector.scores, detector.classes) if detector is not None else ()
    return tuple(dict.fromkeys(filter(None, (head.output, *others))))


class _Fit:
    """Compares sizes of which some are not known."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def rank(self, name: str, shape: Shape, wanted: str) -> None:
        if len(shape) != len(wanted.split(", ")):
            raise self._wrong(name, shape, f"[{wanted}]")

    def size(self, name: str, shape: Shape, axis: int, wanted: int, why: str) -> None:
        if shape[axis] not in (-1, wanted):
            raise self._wrong(name, shape, f"{wanted} at axis {axis % len(shape)}: {why}")

    def classes(self, name: str, shape: Shape, axis: int, others: int) -> None:
        """As many as labels, where there are any, behind so many `others`; at least one."""
        labels, found = len(self._manifest.labels), shape[axis]
        if found != -1 and found <= others:
            raise self._wrong(name, shape, f"more than {others} at axis {axis % len(shape)}: classes come behind them")
        if labels:
            self.size(name, shape, axis, others + labels, f"there are {labels} labels, behind {others} other values")

    def alike(self, sizes: Mapping[str, int], unknown: int) -> None:
        known = {what: size for what, size in sizes.items() if size != unknown}
        if len(set(known.values())) > 1:
            told = ", ".join(f"{what} {size}" for what, size in known.items())
            raise _unfit(self._manifest, f"these should be as many: {told}")

    def _wrong(self, name: str, shape: Shape, wanted: str) -> FoothillError:
        kind = self._manifest.postprocess.kind
        return _unfit(self._manifest, f"its head {kind} needs output {name!r} with {wanted}; it is {list(shape)}")


def _check_yolo(fit: _Fit, output: str, shapes: Mapping[str, Shape], detector: Detector) -> None:
    shape, others = shapes[output], 5 if detector.objectness else 4
    fit.rank(output, shape, "rows, values, anchors" if detector.anchors_last else "rows, anchors, values")
    fit.classes(output, shape, 1 if detector.anchors_last else 2, others)


def _check_ssd(fit: _Fit, shapes: Mapping[str, Shape], detector: Detector) -> None:
    (boxes,), (scores,) = detector.boxes, detector.scores
    fit.rank(boxes, shapes[boxes], "rows, found, 4")
    fit.size(boxes, shapes[boxes], 2, 4, "the sides of a box")
    if detector.classes:
        fit.rank(scores, shapes[scores], "rows, found")
        fit.rank(detector.classes, shapes[detector.classes], "rows, found")
    else:
        fit.rank(scores, shapes[scores], "rows, found, classes")
        fit.classes(scores, shapes[scores], 2, detector.first_class)
    fit.alike({f"found in {name}": shape[1] for name, shape in shapes.items()}, -1)


def _check_nanodet(fit: _Fit, shapes: Mapping[str, Shape], detector: Detector, pre: Preprocess) -> None:
    bins = 4 * (detector.reg_max + 1)
    for scores, boxes, stride in zip(detector.scores, detector.boxes, detector.strides, strict=True):
        cells = -(-pre.width // stride) * -(-pre.height // stride)
        for name, last in ((scores, "classes"), (boxes, "distances")):
            fit.rank(name, shapes[name], f"rows, cells, {last}")
            fit.size(name, shapes[name], 1, cells, f"a picture of {pre.width}x{pre.height} in cells of {stride}")
        fit.classes(scores, shapes[scores], 2, 0)
        fit.size(boxes, shapes[boxes], 2, bins, f"4 sides of reg_max + 1 = {detector.reg_max + 1}")
    fit.alike({f"classes of {name}": shapes[name][2] for name in detector.scores}, -1)


def _unfit(manifest: Manifest, what: str) -> FoothillError:
    return FoothillError("bad_bundle", f"Bundle {manifest.reference} cannot answer: {what}. Compile it again.")
