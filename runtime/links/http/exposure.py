"""Listening where strangers can connect: only with authentication, or because an operator insists."""

from __future__ import annotations

import ipaddress
import logging

from runtime.links.process.settings import SettingsError

log = logging.getLogger(__name__)


INSECURE = "Listen beyond this machine although nothing asks who calls."
"""The help of `--insecure`."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a listener on `host`.

    A name other than localhost is not looked up, since it may mean another address tomorrow; "" is all interfaces.
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_exposure(host: str, *, name: str, protected: bool, insecure: bool, remedy: str) -> None:
    """Raises SettingsError where `name` would listen for strangers without asking who they are.

    `protected`: callers are asked. `insecure`: the operator knows, and is reminded in the log. `remedy` says what to
    set, as a clause.
    """
    if protected or is_loopback(host):
        return
    where = f"every interface ({host!r})" if host in ("", "0.0.0.0", "::") else host
    if not insecure:
        raise SettingsError(
            f"{name}: host {host!r} lets others connect, and nothing asks who they are. Either {remedy}; or listen on "
            "127.0.0.1; or, in a network that only friends reach, start with --insecure (insecure = true)."
        )
    log.warning("%s listens on %s without authentication, as insecure says: whoever connects may use it", name, where)
