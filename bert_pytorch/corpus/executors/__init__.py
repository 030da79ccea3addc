"""Where work runs: this process, local processes or a Dask cluster, behind one interface, `pool.run_tasks`."""
