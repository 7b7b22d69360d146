# %% [markdown]
# # What label smoothing asks of a classifier
#
# Label smoothing moves a part `eps` of each target from the label to all classes.

# %%
import matplotlib.pyplot as plt
import numpy as np

from lsmooth import plots
from lsmooth.losses import softmax_cross_entropy
from lsmooth.smoothing import smooth_labels

targets = smooth_labels(np.arange(5), 0.2, num_classes=5)
targets.round(2)

# %%
plots.target_distribution(targets)
plt.show()

# %% [markdown]
# ## Confidence costs
#
# With hard labels the loss falls for ever as the logit of the label grows. With smoothing it has a least value: at
# `log(1 + (1 - eps) K / eps)` above the other logits.

# %%
heights = np.linspace(0, 12, 49)
for eps in (0.0, 0.1, 0.3):
    losses = [float(softmax_cross_entropy([0], [[h, 0.0, 0.0, 0.0, 0.0]], label_smoothing=eps)) for h in heights]
    plt.plot(heights, losses, label=f"label_smoothing={eps}")
    if eps:
        assert abs(heights[np.argmin(losses)] - np.log(1 + 5 * (1 - eps) / eps)) < 0.3
plt.xlabel("logit of the label above the others")
plt.ylabel("loss")
plt.legend()
plt.show()
