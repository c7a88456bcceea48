"""The status server's socket: bound by the supervisor before anything runs, so that a taken port ends the start."""

from __future__ import annotations

import socket

from esid.errors import AddressInUse


def listen(address: str) -> socket.socket | None:
    """A listening socket; None for `off`. Raises AddressInUse."""
    if address == "off":
        return None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise AddressInUse(
            f"cannot listen on {address}: {error.strerror}; set ESID_HTTP_LISTEN to a free address, or to off"
        ) from None
    return listener
