"""`rec benchmark cluster`."""
