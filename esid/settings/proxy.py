"""The proxy that the environment names for https, as all programs read it: HTTPS_PROXY, ALL_PROXY and NO_PROXY."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from esid.errors import SettingsError
from esid.settings.urls import is_loopback, without_password

NAMES, EXCEPT = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), ("no_proxy", "NO_PROXY")


def named(environ: Mapping[str, str]) -> tuple[str, str]:
    """The proxy's URL, and the hosts that are asked without it; "" where none is named."""
    proxy, direct = (
        next((text for name in names if (text := environ.get(name, "").strip())), "") for names in (NAMES, EXCEPT)
    )
    return (proxy if "://" in proxy or not proxy else f"http://{proxy}"), direct


def between(url: str, proxy: str, direct: str) -> str:
    """The proxy that stands between us and a URL; "" = none."""
    parts = urlsplit(url)
    if not proxy or parts.scheme != "https" or is_loopback(url):
        return ""
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # nobody waits for it who has no proxy

    return "" if proxy_bypass_environment(parts.netloc.rpartition("@")[2], {"no": direct}) else proxy


def check(proxy: str) -> None:
    """Refuse a proxy that is not spoken to by HTTP: it would be passed by without a word.

    Raises:
        SettingsError: with the cure.
    """
    try:
        parts = urlsplit(proxy)
        is_http = parts.scheme == "http" and bool(parts.hostname) and (parts.port or 80) > 0
    except ValueError:
        is_http = False
    if not is_http:
        raise SettingsError(
            f"HTTPS_PROXY (or ALL_PROXY) is {without_password(proxy)}, and esid speaks to proxies by http:// alone; "
            "set another one, or name the hosts of ESI and the killmails in NO_PROXY"
        )
