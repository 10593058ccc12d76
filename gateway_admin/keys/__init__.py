"""Demand: teams and virtual keys."""
