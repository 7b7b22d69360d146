# %% [markdown]
# # Distil a teacher into a student
#
# The student learns from the teacher's probabilities at a temperature, and from the labels.

# %%
import torch
from sklearn.datasets import load_digits

from lsmooth.integrations.torch import CrossEntropyLoss, DistillationLoss

digits = load_digits()
inputs, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)


def train(model, loss_of_logits):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        loss = loss_of_logits(model(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
torch.manual_seed(0)
teacher = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
cross_entropy = CrossEntropyLoss()
train(teacher, lambda logits: cross_entropy(logits, labels))
teacher_logits = teacher(inputs).detach()

# %%
student = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
distillation = DistillationLoss(alpha=0.9, temperature=4.0)
losses = train(student, lambda logits: distillation(logits, teacher_logits, labels))
print(f"{losses[0]:.2f}, then {losses[-1]:.2f}")
agreement = (student(inputs).argmax(1) == teacher_logits.argmax(1)).float().mean().item()
print(f"The student agrees with its teacher on {agreement:.0%} of the digits.")
assert losses[-1] < 0.3 * losses[0]
assert agreement > 0.9
