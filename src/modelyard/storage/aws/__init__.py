"""What the services of AWS that data lies in have in common."""
