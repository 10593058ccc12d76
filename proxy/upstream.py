"""HTTP/1.1 to providers: requests on connections that are kept.

    answer    a request, and the head of its answer                         -> Exchange
    send      the request alone, on an idle connection or on a new one      -> Exchange

There is no queue: how many requests run at once is admission's business. What comes back is
read from the Exchange (exchange.py), the bytes are provider_connection.py's.
"""

import asyncio
import os
import ssl
from collections.abc import Callable

import certifi

from proxy.exchange import Exchange, StaleConnection, UpstreamError
from proxy.provider_connection import Origin, ProviderConnection
from proxy.ticker import Ticker

CONNECT_MAX_S = 10.0


class Upstream:
    """The connections of one worker. All calls from one event loop."""

    def __init__(self, ticker: Ticker) -> None:
        self.ticker = ticker
        self._origins: dict[tuple[str, int, bool], Origin] = {}
        self._tls: ssl.SSLContext | None = None
        self.connects = 0

    def origin(self, scheme: str, host: str, port: int) -> Origin:
        """The origin of an address; the same one for the same address."""
        key = (host, port, scheme == "https")
        found = self._origins.get(key)
        if found is None:
            found = self._origins[key] = Origin(host, port, tls=key[2])
        return found

    async def send(
        self, origin: Origin, request: bytes, *, timeout_s: float, fresh: bool = False
    ) -> Exchange:
        """Send a whole request; raises UpstreamError. The answer is due within `timeout_s`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        connection = None
        while origin.idle and connection is None and not fresh:
            connection = origin.idle.pop()
            if not connection.usable(now):
                connection.close()
                connection = None
        if connection is None:
            connection = await self._connect(origin, timeout_s)
        exchange = Exchange(connection, loop, self.ticker, timeout_s)
        connection.begin(exchange, request)
        return exchange

    async def answer(
        self,
        origin: Origin,
        request: bytes,
        *,
        timeout_s: float,
        begun: Callable[[Exchange], None] | None = None,
    ) -> Exchange:
        """Send a request and wait for its answer's head; raises UpstreamError.

        Sent once more, on a new connection, if a kept one was closed before anybody read it.
        `begun` is told of each exchange, so that it can be given up from elsewhere.
        """
        fresh = False
        while True:
            exchange = await self.send(origin, request, timeout_s=timeout_s, fresh=fresh)
            try:
                if begun is not None:
                    begun(exchange)
                await exchange.head()
            except StaleConnection:
                exchange.end()
                if fresh:
                    raise
                fresh = True
            except BaseException:
                exchange.end()
                raise
            else:
                return exchange

    async def _connect(self, origin: Origin, timeout_s: float) -> ProviderConnection:
        loop = asyncio.get_running_loop()
        self.connects += 1
        try:
            async with asyncio.timeout(min(timeout_s, CONNECT_MAX_S)):
                _, connection = await loop.create_connection(
                    lambda: ProviderConnection(origin),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
        except TimeoutError:
            if timeout_s <= CONNECT_MAX_S:
                raise UpstreamError("timeout", "no connection in time") from None
            text = f"Cannot connect within {CONNECT_MAX_S:g} s."
            raise UpstreamError("connect", text) from None
        except OSError as error:
            text = f"Cannot connect to the provider: {error.strerror or type(error).__name__}."
            raise UpstreamError("connect", text) from None
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            own = os.environ.get("SSL_CERT_FILE", "")  # as LiteLLM reads it
            trusted = own if os.path.exists(own) else certifi.where()
            self._tls = ssl.create_default_context(cafile=trusted)
        return self._tls

    def sweep(self, now: float) -> None:
        """Close what was idle for too long. `now` is the loop's time."""
        for origin in self._origins.values():
            while origin.idle and not origin.idle[0].usable(now):
                origin.idle.popleft().close()

    def close(self) -> None:
        """Close all idle connections."""
        for origin in self._origins.values():
            while origin.idle:
                origin.idle.pop().close()
