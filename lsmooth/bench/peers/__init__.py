"""The losses that lsmooth is compared with: one module for each framework, whose users write them like this.

Each is a function of the logits, or of hidden states and weight, and of the labels or the teacher. Only
`lsmooth.bench.suites._frameworks.step` imports these modules, when a row of their framework is measured.
"""
