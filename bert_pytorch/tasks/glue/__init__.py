"""GLUE (Wang et al. 2019): nine tasks and a diagnostic set, in the layouts of its own files."""
