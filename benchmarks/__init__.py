"""Speed, measured side by side with the peers: `python -m benchmarks` is `lsmooth bench`."""
