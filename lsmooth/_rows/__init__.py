"""Checks, reductions and the members of calls over rows: shared by losses, distillation, preference and compat."""
