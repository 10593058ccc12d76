"""Runs another bench on embedded servers as `manage.py up` starts them, thrown away afterwards.

    python -m tests.bench.embedded tests.bench.ingest --threads 2

PostgreSQL and Valkey synchronise to disk here, as in production; the servers of the tests
do not.
"""

import os
import subprocess
import sys

from tests.servers import TestServers


def main() -> int:
    """Start, migrate, run the bench named by the arguments, stop; the bench's exit status."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    servers = TestServers.join(throwaway=False)
    servers.start()
    try:
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True)
        return subprocess.run([sys.executable, "-m", *sys.argv[1:]], check=False).returncode
    finally:
        servers.stop()


if __name__ == "__main__":
    sys.exit(main())
