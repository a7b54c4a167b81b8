"""The networks, the tasks they are given, and the training of all seeds at once."""
