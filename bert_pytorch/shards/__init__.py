"""Shards: HDF5 files of encoded sequences, in the fork's layout and NVIDIA's, and the manifest beside them."""
