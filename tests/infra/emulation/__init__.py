"""An AWS emulator, a stack applied to it, and what the account says of it."""
