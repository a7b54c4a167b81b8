"""Devices, their clocks and prices, and the budget of whoever pays: all that needs the extra `[devices]`."""
