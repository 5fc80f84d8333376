"""Measurements as pictures: plain values, drawn in the terminal or by matplotlib."""
