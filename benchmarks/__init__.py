"""Speed, measured side by side with the peers: run `python -m benchmarks.cross_entropy`."""
