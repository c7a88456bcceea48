"""Addresses: how their text is read, and what of them may be printed."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote, unquote, urlsplit

#: One host of an address: a name, an IPv4 or [IPv6] address, or a directory (percent-encoded), with a port or without.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%A-Za-z_]+\]|[^\[\]:@/]*)(?::([0-9]{1,5}))?")
_ENCODE = "a URL with a percent-encoded user and password (/ is %2F, ? is %3F, # is %23, @ is %40)"
_PARAMETER = r"(?i:[?&](?:ssl)?password=)([^&#]*)"


def http(value: str) -> str:
    """`https://…`, or `http://…`. Raises ValueError."""
    try:
        parts = urlsplit(value)
        valid = not value or (parts.scheme in {"https", "http"} and bool(parts.hostname))
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("a URL that begins with https:// or http://")
    return value


def http_or_off(value: str) -> str:
    """The same, or off. Raises ValueError."""
    return value if value == "off" else http(value)


def database(value: str) -> str:
    """`sqlite:///FILE`, or an address of PostgreSQL in any of libpq's forms. Raises ValueError."""
    if value == "sqlite:///":
        raise ValueError("a URL with a file, like sqlite:////var/lib/esid/esid.db")
    return value if value.startswith("sqlite:///") else server(value, ("postgresql", "postgres"), "sqlite:///")


def rabbitmq(value: str) -> str:
    """`amqp://…` or `amqps://…`. Raises ValueError."""
    if re.search(r";\s*amqps?:", value):
        raise ValueError("one URL: of several servers, name one that stands for all of them (a DNS name, a load balancer)")
    if re.match(r"amqps?:///", value):
        raise ValueError("a URL with a host")
    found = server(value, ("amqp", "amqps"))
    if "/" in value.partition("://")[2].partition("?")[0].partition("/")[2]:
        raise ValueError("a URL with one name behind the host, its virtual host (a / in it is written %2F)")
    return found


def server(value: str, schemes: tuple[str, ...], *others: str) -> str:
    """An address with one of these schemes. Raises ValueError, which repeats nothing of it."""
    scheme, _, rest = value.partition("://")
    if value and (scheme.lower() not in schemes or not rest):
        raise ValueError("a URL that begins with " + " or ".join([*(f"{one}://" for one in schemes), *others]))
    authority, *behind = re.split(r"[/?#]", rest, maxsplit=1)
    if authority.count("@") > 1 or ("@" not in authority and "@" in "".join(behind).partition("?")[0]):
        raise ValueError(_ENCODE)
    for host in authority.rpartition("@")[2].split(","):
        found = _HOST.fullmatch(host)
        if not found or int(found[2] or 1) > 65535:
            raise ValueError("a URL with a host and a port from 1 to 65535, like " + f"{schemes[0]}://user@host:port/name")
    return value


def postgresql(host: str, port: int, user: str, password: str, name: str) -> str:
    """The URL of a database that is given in parts. The host may be a directory, or several with commas."""
    secret = f":{quote(password, safe='')}" if password else ""
    hosts = (f"[{one}]" if ":" in one else quote(one, safe="") for one in host.split(","))
    places = ",".join(f"{one}:{port}" for one in hosts)
    return f"postgresql://{quote(user, safe='')}{secret}@{places}/{quote(name, safe='')}"


def is_loopback(url: str) -> bool:
    """True where the URL's host is this machine's loopback interface."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def without_password(url: str) -> str:
    """The URL with `***` in the place of its passwords, for logs and messages."""
    for password in sorted(passwords(url), key=len, reverse=True):
        url = url.replace(f":{password}@", ":***@", 1)
        url = re.sub(rf"(?i)(password=){re.escape(password)}", r"\1***", url)
    return url


def passwords(url: str) -> list[str]:
    """Every password in a URL: before the host (up to the last @, for one that is not encoded), or as a parameter."""
    found = re.findall(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#:@]*:(.*)@", url) + re.findall(_PARAMETER, url)
    return [text for text in found if text]


def forms(password: str) -> list[str]:
    """A password as it may be met: as it is, and percent-decoded or encoded."""
    return [password, unquote(password), quote(password, safe="")]
