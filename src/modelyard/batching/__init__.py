"""With whom? Requests of one turn of the loop that may run together (promise P3)."""
