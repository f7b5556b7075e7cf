"""An HTTP proxy: its address, and the name and the password that it may want. It connects to nothing."""

import base64

from attrs import field, frozen
from multidict import CIMultiDict
from yarl import URL

from springest_async.errors import ConfigurationError


@frozen
class Proxy:
    """An HTTP proxy, with the name and the password that it may want, which are never shown."""

    url: URL
    authorization: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers for it, beside the host and port that it connects to."""
        return CIMultiDict({"Proxy-Authorization": self.authorization} if self.authorization else {})


def proxy_at(address: str | Proxy | None) -> Proxy | None:
    """Return the proxy at an address such as ``http://proxy.example:3128`` or ``http://name:password@proxy.example:3128``.

    Raises:
        ConfigurationError: it is not such an address. The error does not show it, because it may have a password.
    """
    if address is None or isinstance(address, Proxy):
        return address
    try:
        url = URL(address)
        port, plain = url.explicit_port, url.with_user(None)
    except ValueError:
        url, port, plain = URL(), None, URL()
    if url.scheme != "http" or not url.host or port == 0 or url.raw_path_qs != "/" or url.raw_fragment:
        raise ConfigurationError("a proxy must be an address such as http://proxy.example:3128 (http, and no path)")
    if url.user is None and url.password is None:
        return Proxy(plain)
    secret = f"{url.user or ''}:{url.password or ''}".encode()
    return Proxy(plain, f"Basic {base64.b64encode(secret).decode()}")
