# %% [markdown]
# # Train a PyTorch model with label smoothing
#
# Two networks on scikit-learn's digits, one of them with `label_smoothing=0.1`. Smoothing lowers their confidence.

# %%
import torch
from sklearn.datasets import load_digits

from lsmooth.integrations.torch import CrossEntropyLoss
from lsmooth.metrics import expected_calibration_error, top_k_accuracy

digits = load_digits()
inputs, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
train, test = order[:300], order[300:]


# %%
def trained(label_smoothing):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss_function = CrossEntropyLoss(label_smoothing=label_smoothing)
    for _ in range(100):
        optimizer.zero_grad()
        loss_function(model(inputs[train]), labels[train]).backward()
        optimizer.step()
    return model


# %%
confidences = {}
for eps in (0.0, 0.1):
    logits = trained(eps)(inputs[test]).detach()
    confidences[eps] = logits.softmax(1).amax(1).mean().item()
    accuracy = float(top_k_accuracy(labels[test], logits))
    ece = float(expected_calibration_error(labels[test], logits, from_logits=True))
    print(f"label_smoothing={eps}: accuracy {accuracy:.3f}, confidence {confidences[eps]:.3f}, ECE {ece:.3f}")
    assert accuracy > 0.85
assert confidences[0.1] < confidences[0.0]
