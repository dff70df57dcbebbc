"""PyTorch models without Python: TorchScript, and what torch.export saves (`.pt2`)."""
