"""`python -m modelyard.entry.drain PARENT_PID`: started by the server, settings on stdin."""

import sys

from modelyard.app.child import be_drain

if __name__ == "__main__":
    be_drain(sys.stdin.buffer.read(), sys.argv[1:])
