"""Keeping a store sound: verify, doctor, rebuild, garbage collection, disk usage."""
