"""Bytes on disk and their limits: payloads, durable writes, prompt files, where things are."""
