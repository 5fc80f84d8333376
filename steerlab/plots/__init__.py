"""Plots: measurements as plain values, drawn in the terminal or by matplotlib."""
