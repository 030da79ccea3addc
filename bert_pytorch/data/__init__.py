"""From shards to micro-batches: sampling, masking, packing, loading."""
