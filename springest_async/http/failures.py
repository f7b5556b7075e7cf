"""Why there is no answer, in our own words, because aiohttp's have addresses and headers in them. It raises nothing."""

import os
import re
from typing import Self

import aiohttp
from attrs import frozen


@frozen
class Failure:
    """Why there is no answer.

    Attributes:
        reason: in words.
        connected: whether there was a connection.
        trusted: whether the server's TLS certificate was.
    """

    reason: str
    connected: bool = True
    trusted: bool = True

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return what an exception of aiohttp's or the system's means for a request."""
        match error:
            case aiohttp.ClientConnectorDNSError() | aiohttp.InvalidURL() | UnicodeError():  # or it is not a name
                return cls("the host's name cannot be resolved", connected=False)
            case aiohttp.ClientConnectorCertificateError():
                why = _certificate_words(error.certificate_error)
                return cls(f"the server's TLS certificate is not trusted: {why}", connected=False, trusted=False)
            case aiohttp.ClientSSLError():
                return cls("no TLS connection could be made", connected=False)
            case aiohttp.ConnectionTimeoutError():
                return cls("no connection within the time allowed", connected=False)
            case aiohttp.ClientConnectorError():
                return cls(f"no connection: {system_words(error.os_error)}", connected=False)
            case aiohttp.ServerDisconnectedError():
                return cls("the server closed the connection without an answer")
            case aiohttp.ClientResponseError():
                # aiohttp invents a status for this (400), which the server did not send.
                return cls("the answer is not HTTP, or too long in its headers")
            case aiohttp.ClientOSError() | OSError():
                return cls(f"the connection broke: {system_words(error)}")
            case _:
                return cls("the connection broke")

    @classmethod
    def at_proxy(cls, error: Exception) -> Self:
        """Return what an exception means that was raised before the request left, on the way through a proxy."""
        match error:
            case aiohttp.ClientSSLError():
                return cls.of(error)  # TLS is between us and the server
            case aiohttp.ClientConnectorDNSError() | aiohttp.InvalidURL() | UnicodeError():
                reason = "the proxy's name cannot be resolved"
            case aiohttp.ClientProxyConnectionError():
                reason = f"no connection to the proxy: {system_words(error.os_error)}"
            case aiohttp.ClientHttpProxyError(status=407):
                reason = "the proxy wants a name and a password, or does not accept those that it was given (407)"
            case aiohttp.ClientHttpProxyError():
                reason = f"the proxy makes no connection to the server: it answered {error.status}"
            case aiohttp.ClientResponseError():
                reason = "the proxy's answer is not HTTP, or too long in its headers"
            case TimeoutError():
                reason = "no connection through the proxy within the time allowed"
            case _:
                reason = "the proxy closed the connection"
        return cls(reason, connected=False)


# Codes of OpenSSL's (X509_V_ERR_…, in the manual page of X509_STORE_CTX_get_error), in the words of a person.
_CERTIFICATE_FAULTS = {
    9: "it is not valid yet, or the clock of this machine is wrong",
    10: "it has expired, or the clock of this machine is wrong",
    18: "it is self-signed",
    19: "it was issued by a CA that is not known here",
    20: "it was issued by a CA that is not known here",
    62: "it is for another host",
    64: "it is for another host",
}


def _certificate_words(error: Exception) -> str:
    code = getattr(error, "verify_code", 0)
    return _CERTIFICATE_FAULTS.get(code) or getattr(error, "verify_message", "") or "it is not valid for this host"


def system_words(error: OSError) -> str:
    """Return the system's words for an error."""
    # Not `strerror`: aiohttp and asyncio write addresses into it.
    text = str(error)
    if "[SSL" in text:  # its number is OpenSSL's, and means something else to the system
        return "what came is no TLS, or was damaged on the way"
    # Several that are not alike, of several addresses, are in one error without a number.
    numbers = [error.errno] if error.errno else map(int, re.findall(r"\[Errno (\d+)\]", text))
    return ", ".join(sorted(set(map(os.strerror, numbers)))) or "lost"
