"""The workbench: vectors on the left, what is known of one on the right, the lab below."""
