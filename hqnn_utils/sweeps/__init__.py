"""Many runs of one chapter: described, executed anywhere, and read back as one table."""
