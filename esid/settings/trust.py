"""Whose certificates are believed: those of the usual authorities, or of a file that a company names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from esid.errors import SettingsError

#: What other programs are told by, in the order in which they count here.
USUAL = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def usual(environ: Mapping[str, str]) -> tuple[str, str]:
    """The file or folder that the environment names for all programs, and where that stands; ("", "default") without one."""
    for name in USUAL:
        if text := environ.get(name, "").strip():
            return text, f"environment, {name}"
    return "", "default"


def check(path: str, name: str) -> None:
    """Refuse a file (or a folder, as `openssl rehash` makes it) without certificates: nobody would be believed.

    Args:
        name: of the setting, with where it stands.

    Raises:
        SettingsError: with the cause.
    """
    import ssl  # nobody waits for it who names no file

    try:
        if Path(path).is_dir():
            if not any(Path(path).glob("*.[0-9]")):
                raise SettingsError(f"{name}: {path} is a folder without certificates; run `openssl rehash {path}`")
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise SettingsError(f"{name}: {path} holds no certificates; it must be a file in PEM form") from None
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be read: {error.strerror}") from None
    if not context.cert_store_stats()["x509"]:
        raise SettingsError(f"{name}: {path} holds no certificates; it must be a file in PEM form")
