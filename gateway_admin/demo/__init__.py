"""Demonstration: provider simulator, seeded organisation, live traffic."""
