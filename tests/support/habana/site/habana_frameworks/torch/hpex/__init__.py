"""`habana_frameworks.torch.hpex`."""
