# %% [markdown]
# # Calibrate a classifier
#
# The logits are three times too large: the classifier is right less often than it says. Temperature scaling finds the
# factor on held-out rows.

# %%
import matplotlib.pyplot as plt
import numpy as np

from lsmooth import plots
from lsmooth.calibration import TemperatureScaling
from lsmooth.metrics import expected_calibration_error, metric_interval

rng = np.random.default_rng(0)
honest = rng.normal(0.0, 2.0, (2000, 5))
labels = (honest + rng.gumbel(size=honest.shape)).argmax(-1)
logits = 3.0 * honest

# %%
scaler = TemperatureScaling().fit(logits[:1000], labels[:1000])
print(f"T = {scaler.temperature_:.2f} ± {scaler.temperature_stderr_:.2f}, {scaler.status_}")
assert abs(scaler.temperature_ - 3.0) < 4 * scaler.temperature_stderr_

# %%
test, calibrated = logits[1000:], scaler.transform(logits[1000:])
for name, z in (("before", test), ("after", calibrated)):
    value, low, high = metric_interval(expected_calibration_error, labels[1000:], z, from_logits=True)
    print(f"ECE {name}: {value:.3f}, 95% interval {low:.3f} to {high:.3f}")

# %%
plots.reliability_diagrams(labels[1000:], {"before": test, "after": calibrated}, from_logits=True, band=0.95)
plt.show()
