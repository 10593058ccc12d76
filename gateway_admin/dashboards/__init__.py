"""Pages and charts over the ledger; reads only."""
