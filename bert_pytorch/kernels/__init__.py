"""Fast paths beside their slow references, and the registry that says which are used and why."""
