"""Fast paths of what models compute, each beside its slow reference, and the registry that says which are used."""
