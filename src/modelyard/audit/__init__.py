"""Who changed what? A chain of events, each hashed with the one before it.

`vocabulary` what can happen · `event` what is written down · `chain` how it is hashed and checked · `acting` who is at
it now · `refused` how refused requests are counted · `ports` what it needs from the world.
"""
