"""One database's content in another: which tables, in which order, compared and written row by row.

`tables` says what a copy holds, `rows` reads a table in the order of its key, `merge` makes a target's table what the
source's is, `target` sees to it that nothing else is overwritten.
"""
