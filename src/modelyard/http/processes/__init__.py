"""The processes of one server: a parent that holds the socket, workers that answer, a drain that stores."""
