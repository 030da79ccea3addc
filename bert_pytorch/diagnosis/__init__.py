"""What machines and the network between them can do: programs that `launch check` and `inspect environment` start."""
