"""Helpers without models. Imports nothing of the apps."""
