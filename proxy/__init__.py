"""Data plane: LiteLLM's proxy behind our ASGI edge. Imports nothing of Django."""
