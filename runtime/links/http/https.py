"""TLS of a listener: certificate and key from files that are read again when they change, clients' own where asked."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from runtime.links.process.settings import SettingsError

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
_Stamp = tuple[tuple[int, int, int], ...]


class HttpsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[https]`: without `cert_file` plain HTTP. With `client_ca_file` only clients pass whose certificate
    these authorities have signed."""

    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""

    def __post_init__(self) -> None:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("https: cert_file and key_file go together; name both, or neither")
        if self.client_ca_file and not self.cert_file:
            raise ValueError("https: client_ca_file needs cert_file and key_file")


def listener_context(config: HttpsConfig, clock: Callable[[], float] = time.monotonic) -> ssl.SSLContext | None:
    """For `runtime.links.http.serve`; None without a certificate. Raises SettingsError for files that do not fit.

    A new certificate is shown within a second and a handshake; connections go on with the one they began with. What
    is wrong then is told in the log, and the old one stays. New authorities of clients take a restart.
    """
    if not config.cert_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, config)
    if config.client_ca_file:
        _trust(context, Path(config.client_ca_file))
    context.sni_callback = _Follower(config, clock).look
    return context


class _Follower:
    """Called in the midst of every handshake, whether the client names a server or not."""

    def __init__(self, config: HttpsConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._stamp = _stamp(config)
        self._look_at_s = clock() + LOOK_AGAIN_S

    def look(self, connection: object, server_name: str | None, context: ssl.SSLContext) -> None:
        now_s = self._clock()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_AGAIN_S
        stamp = _stamp(self._config)
        if stamp == self._stamp:
            return
        try:
            _load(context, self._config)
        except SettingsError as error:
            # Certificate and key are two files: between their two changes they do not fit, so it is tried again.
            log.error("%s The certificate of before stays.", error)
        else:
            log.info("https.cert_file %s changed: new connections see it", self._config.cert_file)
        self._stamp = stamp


def _load(context: ssl.SSLContext, config: HttpsConfig) -> None:
    try:
        # Tried on another context first: a pair that does not fit leaves half of itself behind.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.cert_file, config.key_file, _no_password)
        context.load_cert_chain(config.cert_file, config.key_file, _no_password)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"https: {config.cert_file} and {config.key_file} are no certificate chain and its key in PEM ({error})."
        ) from error


def _trust(context: ssl.SSLContext, authorities: Path) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as error:
        raise SettingsError(f"https.client_ca_file {authorities} holds no certificates in PEM ({error}).") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; a server that starts by itself needs one that is not")


def _stamp(config: HttpsConfig) -> _Stamp:
    return tuple(_stamp_of(path) for path in (config.cert_file, config.key_file))


def _stamp_of(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size
