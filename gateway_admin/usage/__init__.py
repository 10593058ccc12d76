"""The ledger of usage events, its rollups and its ingest."""
