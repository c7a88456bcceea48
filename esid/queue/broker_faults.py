"""Says what an error of pika's means: which of our errors it is, the cause, and the cure."""

from __future__ import annotations

import re
from typing import Any

import pika
from dramatiq.errors import ConnectionClosed

from esid.errors import BrokerRefused, BrokerUnavailable, QueueError, QueueMismatch

#: Errors of pika's while it is let in, each with who is not who he says.
_NOT_LET_IN = {"ProbableAuthenticationError", "ProbableAccessDeniedError", "AuthenticationError"}
#: What the other side does that is no RabbitMQ, or none that we can talk to.
_NO_RABBITMQ = ("Transport indicated EOF", "reset by peer", "Broken pipe", "AMQP handshake", "[SSL")
_FORBIDDEN, _PRECONDITION, _NOT_FOUND, _NOT_ALLOWED = 403, 406, 404, 530


def translated(error: Exception, where: str, queue_name: str = "") -> QueueError:
    """Our error for an error of the connection, of a channel, or of ours.

    Args:
        where: the address of RabbitMQ without its password.
        queue_name: the queue that it is about, where it is about one.
    """
    if isinstance(error, QueueError):
        return error
    cause: Any = error.args[0] if isinstance(error, ConnectionClosed) and error.args else error
    code, said = getattr(cause, "reply_code", None), _said(cause)
    if re.search(r"limit\b.* is reached", said):
        return BrokerUnavailable(f"RabbitMQ at {where} refuses: {said}; raise this limit there")
    if code == _PRECONDITION:
        return _precondition(said, where, queue_name)
    if code == _NOT_FOUND and (home := re.search(r"home node '?([^' ]+)'? .*down", said)):
        return BrokerUnavailable(f"queue {queue_name} cannot be had at {where}: its node {home[1]} is down; start that node")
    names = {type(cause).__name__, *(type(part).__name__ for part in getattr(cause, "args", ()))}
    if names & _NOT_LET_IN or code in {_FORBIDDEN, _NOT_ALLOWED}:
        why = f" ({said})" if said else ""
        if lacks := re.search(r"access to .* in vhost '([^']+)' refused for user '([^']+)'", said):
            cure = f"rabbitmqctl set_permissions -p {lacks[1]} {lacks[2]} '.*' '.*' '.*'"
            return BrokerRefused(f"{where} refused us{why}: the user lacks a right; who administers RabbitMQ runs: {cure}")
        return BrokerRefused(f"{where} refused us{why}: check user, password and virtual host in RABBITMQ_URL")
    if code:
        return BrokerUnavailable(f"RabbitMQ at {where} has ended a connection: {code} {said}; see its log")
    if isinstance(cause, pika.exceptions.ChannelWrongStateError):
        return BrokerUnavailable(f"RabbitMQ at {where}: {cause}")
    words = _innermost(cause)
    if any(sign in words for sign in _NO_RABBITMQ):
        return BrokerUnavailable(
            f"{where} does not answer as RabbitMQ does: is it one, and is its port right in RABBITMQ_URL?"
        )
    return BrokerUnavailable(f"cannot reach RabbitMQ at {where}: {words[:200]}; is it running?")


def is_other_type(error: Any) -> bool:
    """True where RabbitMQ refuses a declaration as it would make, or wants, a queue of another type than ours."""
    text = str(getattr(error, "reply_text", ""))
    return "'x-queue-type'" in text or ("invalid arg" in text and "queue type" in text)


def _precondition(said: str, where: str, queue_name: str) -> QueueError:
    """406 says many things."""
    if "inequivalent" in said or "invalid arg" in said:
        if named := re.search(r"for queue '([^']+)'", said):
            queue_name = named[1]
        return QueueMismatch(
            f"queue {queue_name} exists at {where} with other arguments ({said}); "
            f"delete it (rabbitmqctl delete_queue {queue_name}) or set another ESID_QUEUE_PREFIX"
        )
    if "acknowledgement" in said and "timed out" in said:
        limit = re.search(r"([0-9]+) ms", said)
        return BrokerUnavailable(
            f"RabbitMQ at {where} has taken messages of queue {queue_name} back: its consumer_timeout"
            f"{f' of {int(limit[1]) // 1000} s' if limit else ''} is over; set it to 30 minutes (1800000) there"
        )
    return BrokerUnavailable(f"RabbitMQ at {where} refuses {f'queue {queue_name}' if queue_name else 'it'}: {said}")


def _said(cause: Any) -> str:
    """RabbitMQ's own words, without its name for the kind of them; "" where it said none."""
    text = getattr(cause, "reply_text", "") or ""
    for inner in getattr(cause, "args", ()):
        if not text and isinstance(inner, Exception):
            text = _said(inner)
        elif not text and (found := re.search(r'\([0-9]{3}\) "([^"]*)"', str(inner))):
            text = found[1]
    return re.sub(r"^[A-Z_]+ - ", "", str(text).replace("\\", ""))


def _innermost(error: Any) -> str:
    """What the operating system said, out of the errors that pika wraps around it."""
    while inner := next(
        (one for one in (getattr(error, "exception", None), *error.args) if isinstance(one, Exception)), None
    ):
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
