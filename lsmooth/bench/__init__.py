"""Benchmarks: lsmooth beside each framework's own functions, as ratios, on the machine at hand.

``lsmooth bench`` and ``python -m benchmarks`` run them. A suite is a module of
`lsmooth.bench.suites`; it describes its work as `lsmooth.bench.rows.Row`s, and knows nothing
of timing, memory or tables.
"""
