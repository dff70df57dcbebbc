"""Figures of the prediction log in the database: minutes, hours and days rolled up, the newest minutes from the log."""
