"""One connection to Redis per worker, shared by all its requests.

    call     a command, awaited; replies come back in order, so many may be under way at once
    send     a command whose reply nobody waits for; errors are counted
    script   Lua by its digest; loaded again when the server has forgotten it

Commands of one turn of the event loop leave in one write. Whatever goes wrong is one
exception, LinkDown: a caller has exactly one failure to provide for. A reply that is late
takes the connection with it (those after it would be attributed wrongly), and a new one is
made in the background. A server that does not answer the handshake in time counts as down.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio.connection import ConnectionPool

logger = logging.getLogger("gateway.redis")

CONNECT_MAX_S = 2.0  # TCP and TLS; the answers after that have the link's own time-out
SECOND_LOOK_S = 0.02  # after a time-out: the reply may lie in the socket of a busy process
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 1.0

Argument = str | bytes | int | float


class LinkDown(Exception):
    """Redis did not do what was asked; the message says why, in words fit for a log."""


class Caller(Protocol):
    """Who is told a reply: a Future, or what behaves like one."""

    def done(self) -> bool:
        """Whether nobody wants to know any more."""

    def set_result(self, result: Any, /) -> object:
        """The reply; a server's error is a hiredis.ReplyError."""

    def set_exception(self, exception: Exception, /) -> object:
        """There will be none: LinkDown."""


def _pack(command: Sequence[Argument]) -> bytes:
    return hiredis.pack_command(tuple(command))  # type: ignore[arg-type, no-any-return]  # wrong stub


class _Wire(asyncio.Protocol):
    """One connection: bytes out in batches, replies to their callers in order."""

    def __init__(self, timeout_s: float) -> None:
        self.closed = asyncio.Event()
        self.reason = "connection closed"
        self.errors = 0
        self._timeout_s = timeout_s
        self.loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        # (deadline, caller); None: nobody waits
        self._pending: deque[tuple[float, Caller | None]] = deque()
        self._deadline = 0.0  # of what is asked in this turn of the loop
        self._buffer: list[bytes] = []
        self._watchdog: asyncio.TimerHandle | None = None
        self._suspect: tuple[float, Caller | None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop once connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop when the other side is gone."""
        self.drop(f"connection lost: {exc}" if exc else self.reason)

    def data_received(self, data: bytes) -> None:
        """Called by the loop with what arrived."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._deliver(reply)
        except hiredis.ProtocolError as error:
            self.drop(f"not the Redis protocol: {error}")

    def _deliver(self, reply: Any) -> None:
        if not self._pending:
            self.drop("a reply that nobody asked for")
            return
        _, caller = self._pending.popleft()
        if caller is None:
            self.errors += isinstance(reply, hiredis.ReplyError)
        elif not caller.done():
            caller.set_result(reply)

    def request(self, command: bytes, caller: Caller | None, *, at_once: bool = False) -> None:
        """Queue a packed command; it leaves at the end of this turn of the loop, or at once."""
        if not self._buffer:
            self._deadline = self.loop.time() + self._timeout_s
            if not at_once:
                self.loop.call_soon(self._flush)
        self._buffer.append(command)
        if at_once:
            self._flush()
        self._pending.append((self._deadline, caller))
        if self._watchdog is None:
            self._watchdog = self.loop.call_later(self._timeout_s, self._watch)

    def _flush(self) -> None:
        if self._transport is not None and self._buffer and not self.closed.is_set():
            self._transport.write(b"".join(self._buffer))
        self._buffer.clear()

    def _watch(self) -> None:
        """One timer for all: the oldest question is the first to be late.

        A loop that was busy for so long has not read yet what came in time: it is given a
        turn to read before the server is blamed.
        """
        self._watchdog = None
        if not self._pending or self.closed.is_set():
            return
        oldest = self._pending[0]
        wait_s = oldest[0] - self.loop.time()
        if wait_s > 0:
            self._watchdog = self.loop.call_later(wait_s + 0.001, self._watch)
        elif self._suspect is not oldest:
            self._suspect = oldest
            self._watchdog = self.loop.call_later(SECOND_LOOK_S, self._watch)
        else:
            self.drop(f"no answer within {self._timeout_s:g} s")

    def drop(self, reason: str) -> None:
        """Close; everybody who waits is told."""
        if self.closed.is_set():
            return
        self.reason = reason
        self.closed.set()
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        for _, caller in self._pending:
            if caller is not None and not caller.done():
                caller.set_exception(LinkDown(reason))
        self._pending.clear()
        self._buffer.clear()


class RedisLink:
    """The worker's connection, kept up in the background. All calls from one event loop."""

    def __init__(self, url: str, timeout_s: float) -> None:
        # redis-py reads the URL: user, password, database, unix sockets, TLS and its options.
        self._place: Any = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
        self.timeout_s = timeout_s
        self.failures = 0  # calls that ended in LinkDown
        self.down_since: float | None = time.time()  # time.time(); None while up
        self.reason = "not connected yet"
        self.on_up: list[Callable[[], None]] = []
        self._errors = 0
        self._wire: _Wire | None = None
        self._moved: tuple[str, int] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether a command can leave now."""
        return self._wire is not None and not self._wire.closed.is_set()

    @property
    def errors(self) -> int:
        """Error replies to commands that nobody waited for."""
        return self._errors + (self._wire.errors if self._wire is not None else 0)

    # --- life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, without insisting: a Redis that is away is tried again in the background."""
        first = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(first))
        await first.wait()

    async def stop(self) -> None:
        """Close the connection."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._wire is not None:
            self._wire.drop("this worker is stopping")

    async def _keep(self, first: asyncio.Event) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            try:
                wire = await self._connect()
            except (OSError, TimeoutError, LinkDown) as error:
                self._note_down(str(error) or type(error).__name__)
            else:
                backoff_s = BACKOFF_MIN_S
                self._note_up(wire)
                first.set()
                await wire.closed.wait()
                self._errors += wire.errors
                self._wire = None
                self._note_down(wire.reason)
            first.set()
            await asyncio.sleep(backoff_s * random.uniform(0.8, 1.2))  # noqa: S311  # jitter
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    def _note_down(self, reason: str) -> None:
        self.reason = reason
        if self.down_since is None:
            logger.warning("redis is down: %s", reason)
            self.down_since = time.time()

    def _note_up(self, wire: _Wire) -> None:
        self._wire = wire
        self.down_since, self.reason = None, ""
        logger.info("redis is up")
        for listener in self.on_up:
            listener()

    async def _connect(self) -> _Wire:
        loop, place = asyncio.get_running_loop(), self._place
        path = getattr(place, "path", None)

        def new_wire() -> _Wire:
            return _Wire(self.timeout_s)

        async with asyncio.timeout(CONNECT_MAX_S):
            if path is not None:
                _, wire = await loop.create_unix_connection(new_wire, path)
            else:
                host, port = self._moved or (place.host, place.port)
                context = getattr(place, "ssl_context", None)
                _, wire = await loop.create_connection(
                    new_wire, host, port, ssl=context.get() if context is not None else None
                )
        try:
            await self._shake_hands(wire)
        except BaseException:
            wire.drop("handshake failed")
            self._moved = None
            raise
        return wire

    async def _shake_hands(self, wire: _Wire) -> None:
        commands: list[tuple[Argument, ...]] = []
        user, password = self._place.username, self._place.password
        if password:
            commands.append(("AUTH", user, password) if user else ("AUTH", password))
        if self._place.db and self._moved is None:
            commands.append(("SELECT", self._place.db))
        commands.append(("PING",))
        replies = [self._ask(wire, command) for command in commands]
        for reply in await asyncio.gather(*replies):
            if isinstance(reply, hiredis.ReplyError):
                raise LinkDown(f"redis refuses: {reply}")

    @staticmethod
    def _ask(wire: _Wire, command: Sequence[Argument]) -> "asyncio.Future[Any]":
        caller: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        wire.request(_pack(command), caller)
        return caller

    # --- use -----------------------------------------------------------------------------

    async def call(self, *args: Argument) -> Any:
        """One command and its reply (bytes, int, list, None). Raises LinkDown only."""
        reply = await self.exchange(*args)
        if isinstance(reply, hiredis.ReplyError):
            raise self._refused(reply)
        return reply

    async def exchange(self, *args: Argument) -> Any:
        """Like `call`, but a server's error is returned as a hiredis.ReplyError."""
        return await self.ask(_pack(args))

    async def ask(
        self,
        command: bytes,
        *,
        at_once: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """`exchange` of a command that is packed already.

        `at_once`: it does not wait for others' of this turn of the loop. `meanwhile` is called
        when it was sent or queued, before its reply is waited for.
        """
        wire = self._wire
        if wire is None or wire.closed.is_set():
            self.failures += 1
            raise LinkDown(self.reason or "connection closed")
        caller: asyncio.Future[Any] = wire.loop.create_future()
        wire.request(command, caller, at_once=at_once)
        if meanwhile is not None:
            meanwhile()
        try:
            return await caller
        except LinkDown:
            self.failures += 1
            raise

    def post(self, command: bytes, caller: Caller) -> bool:
        """Send a packed command and have a caller told; False when the link is down."""
        wire = self._wire
        if wire is None or wire.closed.is_set():
            return False
        wire.request(command, caller)
        return True

    def _refused(self, error: hiredis.ReplyError) -> LinkDown:
        """OOM, LOADING, READONLY, a script's fault: nothing that a caller could mend."""
        self.failures += 1
        text = str(error)
        if text.startswith("MOVED ") and self._wire is not None:
            # All our keys live in one slot: following the first redirection follows them all.
            host, _, port = text.split()[2].rpartition(":")
            self._moved = (host or self._place.host, int(port))
            self._wire.drop(f"the keys moved to {host}:{port}")
        return LinkDown(f"redis refuses: {text}")

    def send(self, *args: Argument) -> bool:
        """Send without waiting; False when the link is down and nothing was sent."""
        if self._wire is None or self._wire.closed.is_set():
            return False
        self._wire.request(_pack(args), None)
        return True

    def script(self, text: str) -> "Script":
        """A Lua script, ready to be called."""
        return Script(self, text)


class Script:
    """Called by its digest; sent whole when the server does not know it (any more)."""

    def __init__(self, link: RedisLink, text: str) -> None:
        self._link = link
        self._text = text.encode()
        self.digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> Any:
        """Run it; returns its reply, raises LinkDown."""
        rest = (len(keys), *keys, *args)
        reply = await self._link.exchange("EVALSHA", self.digest, *rest)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            return await self._link.call("EVAL", self._text, *rest)
        if isinstance(reply, hiredis.ReplyError):
            raise self._link._refused(reply)
        return reply

    async def run(
        self,
        command: bytes,
        *,
        at_once: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """The same for a call of it that is packed already; see RedisLink.ask."""
        reply = await self._link.ask(command, at_once=at_once, meanwhile=meanwhile)
        if isinstance(reply, hiredis.ReplyError):
            if not str(reply).startswith("NOSCRIPT"):
                raise self._link._refused(reply)
            self.load()
            reply = await self._link.ask(command)
            if isinstance(reply, hiredis.ReplyError):
                raise self._link._refused(reply)
        return reply

    def load(self) -> None:
        """Have the server know it before what is sent next."""
        self._link.send("SCRIPT", "LOAD", self._text)
