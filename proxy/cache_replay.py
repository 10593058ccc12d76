"""Sends an answer that was found in the response cache."""

from proxy.answer import gateway_headers
from proxy.cache_entry import CachedAnswer
from proxy.trace import Trace
from proxy.usage import cached_event
from proxy.worker import Send, Worker


async def replay(worker: Worker, trace: Trace, answer: CachedAnswer, send: Send) -> None:
    """The kept answer as the client first received it; a stream as a stream.

    The usage event is on disk before the answer leaves.
    """
    event = cached_event(
        trace, model=answer.model, deployment=answer.deployment, saved_cost=answer.cost
    )
    trace.closed = True
    worker.record(event)
    headers = [*answer.sent_headers, *gateway_headers(trace)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if not answer.streaming:
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})
        return
    for part in answer.parts():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
