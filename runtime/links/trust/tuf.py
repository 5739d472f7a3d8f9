"""What this process believes of its fleet: a TUF client (https://theupdateframework.github.io/specification/) that
keeps what it once verified, so that it works on when the fleet is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import urllib3
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    SlowRetrievalError,
)
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.manifest import MAX_MANIFEST_BYTES, digest_of, is_digest, parse_reference
from contracts.targets import CONTROL_KEYS, BundleFacts, ControlKeys, Use, bundle_path, role_of
from contracts.topics import NODE_NAME
from runtime.links.process.durable import write_file
from runtime.links.trust.tls import SYSTEM, Stamp, TlsConfig, TlsFilesError, client_context, is_tls, stamp, told

_NO_DIGEST = "sha256:" + "0" * 64


class TrustError(FoothillError):
    """The fleet's signed metadata is wrong (altered, expired, rolled back), or does not vouch for what was asked."""

    def __init__(self, message: str) -> None:
        super().__init__("forbidden", message)


class TrustExpired(TrustError):  # noqa: N818 - it names a state of the world, not a mistake
    """The fleet's signed metadata is past its time. It was not renewed, or this machine's clock is wrong: either may be
    put right, so it is worth asking again."""

    def __init__(self, message: str) -> None:
        FoothillError.__init__(self, "unavailable", message)


class TrustUnavailable(FoothillError):  # noqa: N818 - it names a state of the world, not a mistake
    """The fleet's metadata cannot be reached now, and nothing verified before answers the question."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class FleetUnreachable(DownloadError):  # noqa: N818 - it names a state of the world
    """No answer comes by this way; another may lead to the fleet."""


class HttpFetcher(FetcherInterface):
    """Fetches metadata. `timeout_s` bounds each wait for bytes, `total_s` the whole answer, however slowly it drips."""

    def __init__(
        self,
        *,
        timeout_s: float = 5.0,
        total_s: float = 60.0,
        tls: TlsConfig = SYSTEM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tls = tls
        self._pool: urllib3.PoolManager | None = None
        self._stamp: Stamp = ()
        self._timeout = urllib3.Timeout(timeout_s)
        self._total_s = total_s
        self._clock = clock

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            response = self._open_pool().request("GET", url, preload_content=False, timeout=self._timeout)
        except urllib3.exceptions.HTTPError as error:
            raise _not_fetched(url, error) from error
        if response.status != 200:
            response.close()
            raise DownloadHTTPError(f"{url} answered HTTP {response.status}", response.status)
        return self._chunks(url, response)

    def _open_pool(self) -> urllib3.PoolManager:
        """Another one when a file of `tls` has changed; connections of the old one end by themselves."""
        now = stamp(self._tls)
        if self._pool is None or now != self._stamp:
            try:
                context = client_context(self._tls)
            except TlsFilesError as error:
                raise DownloadError(f"{error}. Correct the path, or the file.") from error
            retries = urllib3.Retry(total=1, redirect=0, status=0)
            self._pool, self._stamp = urllib3.PoolManager(maxsize=2, retries=retries, ssl_context=context), now
        return self._pool

    def _chunks(self, url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        give_up_at = self._clock() + self._total_s
        try:
            while chunk := response.read1(65_536):
                if self._clock() > give_up_at:
                    raise SlowRetrievalError(f"{url} took more than {self._total_s:g} s")
                yield chunk
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(f"{url}: {_first_cause(error)}") from error
        finally:
            response.close()


class TrustedFleet:
    """One fleet's trusted metadata in one directory. Synchronous and thread-safe; one process a directory.

    `root` is the TUF root metadata (JSON) handed over at enrolment. What was verified once is kept under
    `state_dir/verified`; the directory is trusted as far as the program's own files are.
    """

    def __init__(
        self, state_dir: Path, fleet_url: str, root: bytes, *, fetcher: FetcherInterface | None = None
    ) -> None:
        self._metadata_dir = state_dir / "metadata"
        self._targets_dir = state_dir / "targets"
        self._verified_dir = state_dir / "verified"
        for directory in (self._metadata_dir, self._targets_dir, self._verified_dir):
            directory.mkdir(parents=True, exist_ok=True)
        self._fleet_url = fleet_url.rstrip("/")
        self._root = root
        self._fetcher = fetcher or HttpFetcher()
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Brings metadata and control keys up to date.

        Raises TrustError when what the fleet serves must not be believed, TrustUnavailable when it serves nothing.
        """
        with self._lock:
            self._refresh()

    def keys(self, use: Use) -> dict[str, str]:
        """Key id to public key (hex) of the keys that may sign for `use`. Asks the fleet only the first time."""
        path = self._verified_dir / CONTROL_KEYS
        # Read without the lock: it is replaced in one step, and nobody should wait here for a slow fleet.
        kept = _read(path)
        if kept is None:
            self.refresh()
            kept = path.read_bytes()
        return _with_use(_decode_keys(kept), use)

    def manifest(self, model: str, digest: str, candidate: bytes | None) -> bytes:
        """The manifest that the fleet signed for `model` under `digest`, as bytes.

        `candidate` spares the download when it is the signed one. Off line, only what was verified before passes.
        """
        path = _target_of(model, digest)
        with self._lock:
            try:
                updater = self._refresh()
                with _Translated():
                    data = self._signed_manifest(updater, path, candidate)
            except TrustUnavailable:
                kept = _read(self._verified_dir / path)
                if kept is None:
                    raise
                return kept
            if digest_of(data) != digest:
                raise TrustError(f"Target {path} is signed, but its content is {digest_of(data)}: the fleet is broken.")
            self._keep(path, data)
            return data

    def resolve(self, model: str, reference: str) -> str:
        """The digest of bundle `name@version` of `model`, as the signed metadata says; kept for when it is away."""
        name, version = parse_reference(reference)
        answer = f"references/{_checked_model(model)}/{name}@{version}"
        with self._lock:
            try:
                updater = self._refresh()
                with _Translated():
                    digest = self._signed_digest(updater, model, name, version)
            except TrustUnavailable:
                kept = _read(self._verified_dir / answer)
                if kept is None:
                    raise
                return kept.decode()
            self._keep(answer, digest.encode())
            return digest

    def _refresh(self) -> Updater:
        # A TUF Updater refreshes once in its life, so each refresh is a new one over the same directory.
        with _Translated():
            updater = Updater(
                metadata_dir=str(self._metadata_dir),
                metadata_base_url=f"{self._fleet_url}/tuf/metadata/",
                target_dir=str(self._targets_dir),
                target_base_url=f"{self._fleet_url}/tuf/targets/",
                fetcher=self._fetcher,
                bootstrap=self._root,
            )
            updater.refresh()
            self._refresh_keys(updater)
        return updater

    def _refresh_keys(self, updater: Updater) -> None:
        info = updater.get_targetinfo(CONTROL_KEYS)
        if info is None:
            raise TrustError(f"The fleet's metadata lists no {CONTROL_KEYS}, so nothing it says can be checked.")
        kept = _read(self._verified_dir / CONTROL_KEYS)
        if kept is None or not _matches(info, kept):
            data = self._download(updater, info)
            _decode_keys(data)
            self._keep(CONTROL_KEYS, data)

    def _signed_manifest(self, updater: Updater, path: str, candidate: bytes | None) -> bytes:
        info = updater.get_targetinfo(path)
        if info is None:
            raise TrustError(f"The fleet has not signed {path}. Publish the bundle first, or ask for a signed one.")
        if info.length > MAX_MANIFEST_BYTES:
            raise TrustError(f"Target {path} has {info.length} bytes; a manifest has at most {MAX_MANIFEST_BYTES}.")
        if candidate is not None and _matches(info, candidate):
            return candidate
        return self._download(updater, info)

    def _signed_digest(self, updater: Updater, model: str, name: str, version: str) -> str:
        # Asking for a path that cannot exist makes the client load, verify and store the model's delegated role.
        updater.get_targetinfo(bundle_path(model, _NO_DIGEST))
        stored = _read(self._metadata_dir / f"{role_of(model)}.json")
        listed = Metadata[Targets].from_bytes(stored).signed.targets if stored is not None else {}
        found = [path for path, info in listed.items() if _is_bundle(info, name, version)]
        if len(found) != 1:
            raise TrustError(
                f"The fleet's metadata lists {len(found)} bundles {name}@{version} of model {model}, where one is "
                f"needed. See `foothill fleet model list`."
            )
        return "sha256:" + found[0].rpartition("/")[2].removesuffix(".json")

    def _download(self, updater: Updater, info: TargetFile) -> bytes:
        stored = Path(updater.download_target(info))
        data = stored.read_bytes()
        stored.unlink()
        return data

    def _keep(self, name: str, data: bytes) -> None:
        path = self._verified_dir / name
        if _read(path) != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, data)


def known_keys(state_dir: Path, use: Use) -> dict[str, str]:
    """As `TrustedFleet.keys` over the same directory, without asking the fleet: {} where it was never asked."""
    kept = _read(state_dir / "verified" / CONTROL_KEYS)
    return {} if kept is None else _with_use(_decode_keys(kept), use)


class _Translated:
    """Turns the TUF client's exceptions into ours: the network's fault, or the metadata's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExpiredMetadataError):
            raise TrustExpired(
                f"The fleet's signed metadata is refused: {error}. Is the fleet manager running, which renews it, and "
                f"this machine's clock right?"
            ) from error
        if isinstance(error, (RepositoryError, DownloadLengthMismatchError, LengthOrHashMismatchError)):
            raise TrustError(
                f"The fleet's signed metadata is refused: {error}. Nothing new is taken until it is right again."
            ) from error
        if isinstance(error, DownloadError):
            raise TrustUnavailable(
                f"The fleet's metadata cannot be reached: {error}. Is the fleet manager running, and its URL right?"
            ) from error


def _target_of(model: str, digest: str) -> str:
    if not is_digest(digest):
        raise FoothillError("bad_request", f"{digest[:80]!r} is not a digest sha256:<64 hex digits>.")
    return bundle_path(_checked_model(model), digest)


def _checked_model(model: str) -> str:
    if not NODE_NAME.fullmatch(model):
        raise FoothillError("bad_request", f"{model[:80]!r} is not a model name: lower-case letters, digits and '-'.")
    return model


def _is_bundle(info: TargetFile, name: str, version: str) -> bool:
    try:
        facts = msgspec.convert(info.custom, BundleFacts)
    except msgspec.ValidationError:
        return False
    return (facts.name, facts.version) == (name, version)


def _matches(info: TargetFile, data: bytes) -> bool:
    try:
        info.verify_length_and_hashes(data)
    except LengthOrHashMismatchError:
        return False
    return True


def _decode_keys(data: bytes) -> ControlKeys:
    try:
        return msgspec.json.decode(data, type=ControlKeys)
    except UNREADABLE as error:
        raise TrustError(f"The fleet's {CONTROL_KEYS} cannot be read: {error}. Update this program.") from error


def _with_use(keys: ControlKeys, use: Use) -> dict[str, str]:
    return {key.key_id: key.public_key for key in keys.keys if use in key.uses}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _not_fetched(url: str, error: urllib3.exceptions.HTTPError) -> DownloadError:
    """Whoever answers there and cannot prove to be the fleet is no reason to go another way in silence."""
    kind = DownloadError if is_tls(error) else FleetUnreachable
    return kind(f"{url}: {told(_first_cause(error))}")


def _first_cause(error: BaseException) -> BaseException:
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, BaseException) else error
