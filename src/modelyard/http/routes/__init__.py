"""The ASGI routes."""
