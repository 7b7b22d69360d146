"""A pytest plugin for Keras' own tests of distillation: they find lsmooth's LogitsDistillation in the place of Keras'.

Loaded by test_keras_distillation.py into a separate process. Only that name is changed in the
modules of Keras' tests. TestFeatureDistillation, which has no LogitsDistillation in it, is left out.
"""

from lsmooth.integrations.keras import LogitsDistillation


def pytest_collection_modifyitems(config, items):
    others = [item for item in items if item.cls.__name__ == "TestFeatureDistillation"]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    for module in {item.module for item in items}:
        module.LogitsDistillation = LogitsDistillation
