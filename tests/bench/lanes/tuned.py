"""LiteLLM's own app, served as well as it can be without touching it.

CONFIG_FILE_PATH=... python -m tests.bench.lanes.tuned PORT
"""

import gc
import sys

import uvicorn
from litellm.proxy.proxy_server import app

GC_THRESHOLDS = (50_000, 20, 100)  # those of our replicas


class Frozen(uvicorn.Server):
    """Takes what was made until now out of the collector's sight."""

    async def startup(self, sockets: object = None) -> None:
        """LiteLLM's lifespan has run when this returns."""
        await super().startup(sockets)  # type: ignore[arg-type]
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)


if __name__ == "__main__":
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="error",
    )
    Frozen(config).run()
