"""Manifests written to do harm, all the way into a store: nothing leaves its directory, nothing is taken half."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.manifest import FILE, MAX_FILES, File, Manifest, check, decode, digest_of, encode
from runtime.links.bundles.store import BundleStore
from tests.contracts.test_manifest import DIGEST, GOOD

Change = Callable[[dict[str, Any]], None]


def changed(change: Change) -> bytes:
    document = json.loads(encode(GOOD))
    change(document)
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def named(path: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["files"][path] = {"sha256": DIGEST, "bytes": 3}

    return change


def sized(size: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["files"] = {path: {"sha256": DIGEST, "bytes": size} for path in document["files"]}

    return change


def set_in(*steps: Any, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        for step in steps[:-1]:
            document = document[step]
        document[steps[-1]] = value

    return change


PATHS = [
    *("..", "../x", "a/..", "a/../../x", "./x", "a/./b", "a//b", "/", "//x", "/etc/passwd", "~/x", "~root"),
    *("C:\\x", "\\\\host\\share", "a\\..\\b", "file:///x", "a:b", "con\x00", "a\x00.onnx", "a\n", "a\r\nb", "\x7f"),
    *("．．/x", "a／b", "․․/x", "a\u202eb", "a\u200b", "\ufeffa", "é", "e\u0301", "\ud800", "💥", "ａ.onnx"),
    *("%2e%2e/x", ".git/config", ".", "...", "a/.b", "-rf", "a b", "a*", "$HOME", "`id`", "a;b", "a|b", "<a>"),
    *("x" * 129, "/".join(["x" * 128] * 5), "a/b/c/d/e", "a/", "", " ", "\t"),
    *(FILE, "measurements.json", f"{FILE}/x", f"{FILE}.new", "measurements.json.new", "cpu.onnx/x", "golden"),
]


@pytest.mark.parametrize("path", PATHS, ids=ascii)
def test_no_path_can_lead_elsewhere(path: str) -> None:
    with pytest.raises(FoothillError) as refused:
        decode(changed(named(path)))
    assert refused.value.code == "bad_bundle"


HOSTILE: dict[str, bytes] = {
    "two sizes of one content": changed(set_in("files", "cpu.onnx", "bytes", value=4)),
    "negative size": changed(sized(-1)),
    "endless size": changed(sized(10**40)),
    "larger than any disk": changed(sized(1 << 60)),
    "size as text": changed(sized("3")),
    "size as float": changed(sized(3.5)),
    "no size": changed(sized(None)),
    "digest of another kind": changed(set_in("files", "cpu.onnx", "sha256", value="md5:" + "0" * 32)),
    "digest in capitals": changed(set_in("files", "cpu.onnx", "sha256", value="sha256:" + "A" * 64)),
    "digest that is a path": changed(
        set_in("files", "cpu.onnx", "sha256", value="sha256:../../../etc/passwd" + "0" * 37)
    ),
    "digest with a tail": changed(set_in("files", "cpu.onnx", "sha256", value=DIGEST + "\n")),
    "more files than allowed": changed(
        set_in("files", value={f"f{at}": {"sha256": DIGEST, "bytes": 3} for at in range(MAX_FILES + 1)})
    ),
    "no files": changed(set_in("files", value={})),
    "files as a list": changed(set_in("files", value=[["cpu.onnx", DIGEST, 3]])),
    "an artifact beside the files": changed(set_in("artifacts", 0, "file", value="../../../lib.so")),
    "golden beside the files": changed(set_in("golden", "inputs", value={"in": "/etc/passwd"})),
    "an engine in disguise": changed(set_in("artifacts", 0, "runtime", value="python")),
    "a model that is a path": changed(set_in("model", value="../digits")),
    "a name that is a path": changed(set_in("name", value="a/b")),
    "a version that is a path": changed(set_in("version", value="1/../2")),
    "a field of its own": changed(set_in("run", value="rm -rf /")),
    "not a number": encode(GOOD).replace(b'"atol":0.0001', b'"atol":NaN'),
    "nesting without end": b'{"files":' + b"[" * 200_000,
    "a number without end": b'{"schema":' + b"9" * 900_000 + b"}",
    "two documents": encode(GOOD) * 2,
    "a byte order mark": b"\xef\xbb\xbf" + encode(GOOD),
    "utf-16": encode(GOOD).decode().encode("utf-16"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_that_lies_is_refused_whole(name: str) -> None:
    with pytest.raises(FoothillError) as refused:
        decode(HOSTILE[name])
    assert refused.value.code == "bad_bundle"
    assert len(refused.value.message) < 1000


PLAIN = st.from_regex(r"[a-c]{1,3}(/[a-c.]{1,3}){0,4}", fullmatch=True)
NAMES = PLAIN | st.text("abAB01._-/~ \\\0é．", min_size=1, max_size=20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        NAMES | st.from_regex(r"[a-c]{1,3}(/[a-c.]{1,3}){0,4}", fullmatch=True), st.binary(max_size=4), max_size=6
    )
)
def test_whatever_is_accepted_stays_in_its_directory(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("bundle")
    manifest = _with(contents)
    try:
        check(manifest)
    except FoothillError:
        return
    store = BundleStore(root / "store", reserve_bytes=0)
    for data in {*_plain().values(), *contents.values()}:
        file = File(digest_of(data), len(data))
        store.partial(file.sha256).write_bytes(data)
        store.adopt(file)
    made = store.assemble(digest_of(encode(manifest)), encode(manifest))
    store.verify(digest_of(encode(manifest)))
    found = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert found == {FILE, *manifest.files}
    outside = [path for path in root.iterdir() if path.name != "store"]
    assert not outside


def _plain() -> dict[str, bytes]:
    return dict.fromkeys(GOOD.files, b"abc")


def _with(contents: dict[str, bytes]) -> Manifest:
    every = _plain() | {name: data for name, data in contents.items() if name not in GOOD.files}
    files = {name: File(digest_of(data), len(data)) for name, data in every.items()}
    bare = msgspec.structs.replace(GOOD.artifacts[0], confidence=None)
    return msgspec.structs.replace(GOOD, files=files, artifacts=(bare,))


def test_links_in_a_packed_directory_bring_nothing_but_the_bytes_that_were_signed(tmp_path: Path) -> None:
    """An operator's directory may be made of links; what they lead to must be the content that the manifest names."""
    secret, packed = tmp_path / "secret", tmp_path / "packed"
    secret.write_bytes(b"key")
    manifest = encode(_with({}))
    for name, data in _plain().items():
        (packed / name).parent.mkdir(parents=True, exist_ok=True)
        (packed / name).write_bytes(data)
    (packed / FILE).write_bytes(manifest)
    (packed / "cpu.onnx").unlink()
    (packed / "cpu.onnx").symlink_to(secret)
    store = BundleStore(tmp_path / "store", reserve_bytes=0)
    with pytest.raises(FoothillError, match="Pack it again"):
        store.add_directory(packed)
    assert store.digests() == []
    good = tmp_path / "good"
    good.write_bytes(b"abc")
    (packed / "cpu.onnx").unlink()
    (packed / "cpu.onnx").symlink_to(good)
    kept = store.path(store.add_directory(packed)) / "cpu.onnx"
    assert not kept.is_symlink()
    good.write_bytes(b"other")
    assert kept.read_bytes() == b"abc"


def test_a_content_in_the_store_cannot_be_written_through_a_bundle(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store", reserve_bytes=0)
    data = b"abc"
    file = File(digest_of(data), len(data))
    store.partial(file.sha256).write_bytes(data)
    store.adopt(file)
    manifest = encode(_with({}))
    made = store.assemble(digest_of(manifest), manifest)
    assert (made / "cpu.onnx").stat().st_mode & 0o222 == 0
    assert os.stat(made / "cpu.onnx").st_nlink == 1 + len(GOOD.files)
