"""The machine: processes of a run, devices, numeric precision, requests to stop.

The only room that touches `torch.distributed` and device-specific libraries.
"""
