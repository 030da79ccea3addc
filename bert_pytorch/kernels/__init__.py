"""Fast paths of what models compute, each beside the slow reference that tests hold it to."""
