"""TLS of a client: whom it believes, and what it shows of itself, to the broker and to the fleet manager.

The files are read again for every new connection, so that certificates may be renewed under a running process.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

import msgspec

from runtime.links.process.settings import SettingsError

Stamp = tuple[tuple[int, int, int], ...]

_REASONS = (
    ("certificate has expired", "its certificate has expired, or this machine's clock is wrong"),
    ("certificate is not yet valid", "its certificate is not valid yet, or this machine's clock is wrong"),
    ("Hostname mismatch", "its certificate is for another name; use the name that the certificate has"),
    ("IP address mismatch", "its certificate is for another address; use the name that the certificate has"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is signed by nobody in tls.ca_file, nor, without one, the system's"),
    ("CERTIFICATE_REQUIRED", "it wants a certificate of this client; set tls.cert_file and tls.key_file"),
    ("HANDSHAKE_FAILURE", "it refuses the handshake: it may want a certificate (tls.cert_file and tls.key_file)"),
    ("ALERT_CERTIFICATE_EXPIRED", "it says that this client's certificate (tls.cert_file) has expired"),
    ("ALERT_CERTIFICATE_REVOKED", "it says that this client's certificate (tls.cert_file) was revoked"),
    ("ALERT_UNKNOWN_CA", "it does not know who has signed this client's certificate (tls.cert_file)"),
    ("ALERT_BAD_CERTIFICATE", "it refuses this client's certificate (tls.cert_file)"),
    ("ALERT_CERTIFICATE_UNKNOWN", "it refuses this client's certificate (tls.cert_file)"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS there; use the port that does"),
    ("RECORD_LAYER_FAILURE", "it does not speak TLS there; use the port that does"),
)
"""What OpenSSL says, and what it means here; the first that is found counts."""


class TlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[tls]`, for `mqtts://` and `https://`. Files are PEM.

    `ca_file` names the authorities that are believed; "" is the system's. `cert_file` and `key_file` are shown to
    whoever asks for them.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def __post_init__(self) -> None:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("tls: cert_file and key_file go together; name both, or neither")


SYSTEM = TlsConfig()
"""The authorities of the system, and no certificate of one's own."""


class TlsFilesError(OSError):
    """A file of `[tls]` cannot be used. It may be in the midst of being renewed."""


def client_context(config: TlsConfig) -> ssl.SSLContext:
    """TLS 1.2 at least, names checked. Blocks for file reads. Raises TlsFilesError that names the file."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
    except (OSError, ValueError) as error:
        raise TlsFilesError(f"tls.ca_file {config.ca_file} holds no certificates in PEM ({error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.cert_file:
        try:
            context.load_cert_chain(config.cert_file, config.key_file, _no_password)
        except (OSError, ValueError) as error:
            raise TlsFilesError(
                f"tls.cert_file {config.cert_file} and tls.key_file {config.key_file} are no certificate chain and its "
                f"key in PEM ({error})"
            ) from error
    return context


def checked(config: TlsConfig) -> TlsConfig:
    """The same, once its files can be used. Raises SettingsError."""
    try:
        client_context(config)
    except TlsFilesError as error:
        raise SettingsError(f"{error}. Correct the path, or the file.") from error
    return config


def own_context(config: TlsConfig) -> ssl.SSLContext | None:
    """For `Upstreams`, which keeps it for its life; None where nothing is configured. Raises SettingsError."""
    return client_context(checked(config)) if config != SYSTEM else None


def stamp(config: TlsConfig) -> Stamp:
    """Changes when one of the files does."""
    return tuple(_stamp_of(path) for path in (config.ca_file, config.cert_file, config.key_file))


def told(error: BaseException | str) -> str:
    """Why a connection failed; where it was TLS, what that means and what to do."""
    if isinstance(error, str):
        said = own = error
    else:
        said, own = "; ".join(map(str, _causes(error))), str(error) or type(error).__name__
    meaning = next((meaning for words, meaning in _REASONS if words in said), "")
    return f"{meaning} ({own})" if meaning else own


def is_tls(error: BaseException) -> bool:
    """Whether TLS is what failed: the other end is there, and one of the two does not believe the other."""
    return any(isinstance(cause, ssl.SSLError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; clients put that into `reason`, `os_error` or `__cause__`."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(seen) < 10:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            waiting += [one.__cause__, getattr(one, "reason", None), getattr(one, "os_error", None), *one.args]


def _no_password() -> str:
    raise ValueError("the key is encrypted; a process that starts by itself needs one that is not")


def _stamp_of(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size
