"""Training engine: what one update does, in which order, and how long it takes."""
