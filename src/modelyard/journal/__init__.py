"""What did we say? The record, the spool it is written to before the answer, and its drain (DATA-2, promise P1)."""
