"""What was published, and what runs of many seeds say of it."""
