"""Worker processes of one machine: where tasks are worked on, how they end, results in order."""
