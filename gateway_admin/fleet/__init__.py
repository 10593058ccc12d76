"""Revisions, policies and the replicas that serve them."""
