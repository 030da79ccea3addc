"""One runnable per question; each ends in one JSON line. Dated results, failures too, are in `results/`."""
