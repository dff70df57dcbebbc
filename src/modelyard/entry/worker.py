"""`python -m modelyard.entry.worker SLOT LISTENER CONTROL COUNTER QUOTA SUCCESSOR`: started by the server, settings on
stdin."""

import sys

from modelyard.app.child import be_worker

if __name__ == "__main__":
    be_worker(sys.stdin.buffer.read(), sys.argv[1:])
