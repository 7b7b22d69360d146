"""A PyTorch model with a temperature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lsmooth.integrations._extras import needs

with needs("torch", "torch"):
    import torch

from lsmooth.calibration import TemperatureScaling
from lsmooth.integrations._temperature import check_last_activation, fit_temperature, scaled
from lsmooth.integrations._torch_options import changed_options, class_axis, described, has_values, real_tensor


class TemperatureScaled(torch.nn.Module):
    """A model whose logits are divided by a temperature: ``model(x) / T``.

    The temperature is a buffer, which moves with the module and is part of its ``state_dict``. A
    ``torch.nn.Parameter`` as ``temperature`` becomes a parameter of the module, and is learned.

    Args:
        model: returns logits; or probabilities, if ``from_logits`` is False.
        temperature: T > 0, a number; or a tensor that broadcasts to the logits' shape without ``axis``.
        axis: the class axis, 1 by default as in torch.
        from_logits: False for a model that returns probabilities p: the result is then that of the logits ``log p``,
            as probabilities. A ValueError if the model's last activation contradicts it.
        binary: whether each output belongs to a binary label of its own, so that there is no class axis.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
        >>> import torch
        >>> from lsmooth.integrations.torch import TemperatureScaled
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> model = TemperatureScaled(torch.nn.Identity())
        >>> model.calibrate([(logits, torch.tensor([0, 0, 1, 1]))]).status_
        'converged'
        >>> round(model.temperature.item(), 4)
        3.641
    """

    temperature: torch.Tensor

    def __init__(
        self,
        model: torch.nn.Module,
        temperature: float | torch.Tensor = 1.0,
        *,
        axis: int = 1,
        from_logits: bool = True,
        binary: bool = False,
    ):
        super().__init__()
        check_last_activation(_last_activation(model), from_logits=from_logits, binary=binary)
        self.model = model
        self.axis = class_axis(axis)
        self.from_logits = from_logits
        self.binary = binary
        value = real_tensor("temperature", temperature)
        if value is None or (has_values(value) and not bool((value > 0).all())):
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        if isinstance(value, torch.nn.Parameter):
            self.temperature = value
        else:
            self.register_buffer("temperature", value.to(torch.get_default_dtype(), copy=True))

    def extra_repr(self) -> str:
        """The options that are not at their defaults."""
        return described(changed_options(self))

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The model's outputs with the temperature, in their shape and dtype; arguments are those of the model."""
        options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
        return scaled(self.model(*args, **kwargs), self.temperature, **options)

    def calibrate(self, batches: Iterable[tuple[Any, ...]], *, ignore_index: int | None = -100) -> TemperatureScaling:
        """Fit the temperature by maximum likelihood; the model runs once on each batch, in evaluation mode.

        Args:
            batches: ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of held-out data on the model's device,
                such as a DataLoader; inputs may be a tensor, or a tuple or a dictionary of arguments.
            ignore_index: labels with this id are excluded.

        Returns:
            The scaler, with the status and the likelihoods of the fit. Raises as `TemperatureScaling.fit` does.
        """
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            with torch.no_grad():
                pairs = ((_call(self.model, inputs), *rest) for inputs, *rest in batches)
                options = {"axis": self.axis, "from_logits": self.from_logits, "binary": self.binary}
                scaler = fit_temperature(TemperatureScaling(ignore_index=ignore_index, **options), pairs)
                self.temperature.fill_(scaler.temperature_)
        finally:
            for module, training in modes:
                module.training = training
        return scaler


def _last_activation(model: torch.nn.Module) -> str | None:
    """The name of the model's last module, which may be an activation."""
    while isinstance(model, torch.nn.Sequential) and len(model):
        model = model[-1]
    return type(model).__name__.lower()


def _call(model: torch.nn.Module, inputs: Any) -> torch.Tensor:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
