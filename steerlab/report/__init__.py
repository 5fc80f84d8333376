"""Report: everything known about a vector, on one self-contained page."""
