"""Analytics in memory."""
