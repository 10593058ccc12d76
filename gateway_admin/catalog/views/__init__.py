"""Pages of supply: thin; forms collect, services decide."""
