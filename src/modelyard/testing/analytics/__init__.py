"""Analytics, and the archive, in memory."""
