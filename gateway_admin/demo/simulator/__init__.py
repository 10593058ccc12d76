"""Provider simulator: one loopback server that speaks the wire formats of real providers.

    python -m gateway_admin.demo.simulator --port 0 --ready-file /tmp/sim.json

Answers and token counts are a function of the request (see `answers`), so that a test can
tell what must come back. What it served is kept in a ledger of its own (see `ledger`): the
independent truth that usage measured elsewhere is compared with. How it behaves is scripted
per provider kind, model and credential (see `script`).

Layout: `app` (ASGI routes) -> `engine` (pacing, faults, ledger) -> one module per provider,
which are pure functions from a request to a reply. Standard library, uvicorn and orjson only.
"""
