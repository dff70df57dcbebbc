"""Requests of one turn of the loop that share a form, read and answered together, for the surfaces whose bodies name
rows or features (API-6). The Open Inference Protocol has its own (`codec.oip_turn`)."""
