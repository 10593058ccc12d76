"""Run the simulator: `python -m gateway_admin.demo.simulator --port 0 --ready-file PATH`.

It listens on loopback only. With a ready file it writes `{"base_url", "port", "pid"}` there
once it accepts connections.
"""

import argparse
import json
import os
import socket
from pathlib import Path

import uvicorn

from gateway_admin.demo.simulator.app import Simulator

HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    """Tells where it listens once it does."""

    ready_file: Path | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.ready_file is None or not sockets:
            return
        port = sockets[0].getsockname()[1]
        told = {"base_url": f"http://{HOST}:{port}", "port": port, "pid": os.getpid()}
        draft = self.ready_file.with_name(self.ready_file.name + ".new")
        draft.write_text(json.dumps(told))
        draft.replace(self.ready_file)


def main() -> None:
    """Parse the arguments and serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description="Simulates LLM providers on loopback.")
    parser.add_argument("--port", type=int, default=4900, help="0 picks a free one")
    parser.add_argument("--ready-file", type=Path, help="told where it listens, as JSON")
    options = parser.parse_args()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, options.port))
    config = uvicorn.Config(
        Simulator(),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # cut connections are meant, not worth a line each
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    server.ready_file = options.ready_file
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
