"""Formats whose files are programs, run where they can do nothing but compute (docs/decisions/0034-the-jail.md).

This side starts the process, speaks with it, bounds it and believes nothing that it says; `inside` is what runs there.
"""
