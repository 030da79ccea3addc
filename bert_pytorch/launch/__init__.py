"""Starting a program on all machines of a job: from a scheduler's variables to torchrun on each of them."""
