"""The CPU kernels as operators that ``torch.compile`` calls. Importing them imports the compiler, which is slow."""
