"""Composition: every process of Modelyard is put together here, top to bottom, and taken apart in reverse.

`services.open_services` (stores and stations, for routes and command line) · `server.serve` (the parent) ·
`worker.run_worker` · `drain.run_drain`.
"""
