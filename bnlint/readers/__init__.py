"""Bytes to model. Nothing here runs code from a file or imports torch."""
