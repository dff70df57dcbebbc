"""The OpenAPI document, each model's own part of it, and the page that shows it without a network."""
