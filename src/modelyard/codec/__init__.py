"""Bytes to tensors and back; used by http, aws and the drain alike."""
