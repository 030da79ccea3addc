"""Encoders for packed input: their configuration, parts, assembly, initialisation and size."""
