"""Gradient-boosted trees: LightGBM's text and XGBoost's JSON and UBJSON."""
