"""Models that run in another process: what the jailed ones and the shared ones have in common.

Words are frames over a socket, tensors lie in memory that both sides have mapped; every wait has a deadline, and a
process that is gone is started again, with pauses. A jailed process imports from here before it may start threads:
nothing heavy at import.
"""
