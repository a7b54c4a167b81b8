"""Circuits of a few qubits: their definition, an exact engine for batches, gradients, layers and what entanglement does."""
