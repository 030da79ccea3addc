"""Doors to and from other projects' models."""
