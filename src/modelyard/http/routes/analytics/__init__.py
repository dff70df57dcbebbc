"""Figures of the prediction log over HTTP."""
