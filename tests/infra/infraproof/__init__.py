"""The machinery that plans, breaks, applies and reads back the Terraform stack; the checks live beside it."""
