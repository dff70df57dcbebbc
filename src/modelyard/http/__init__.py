"""The server: the protocol with native predict routes, the supervisor, the ASGI routes."""
