import pytest

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.postprocess.scene import Needs
from vol3d.postprocess.steps import steps_from
from vol3d.tasks.accuracy import STEPS


@pytest.mark.parametrize("name", STEPS)
def test_the_steps_that_are_measured_exist_and_none_undoes_the_gate(name: str) -> None:
    config = load(Config, text=None, name="test", overrides=[f"postprocess.steps={STEPS[name]}"])
    steps = steps_from(config.postprocess.steps)
    names = [step.name for step in steps]
    assert ("organ_gate" in names) == ("gate" in name)
    after = steps[names.index("organ_gate") + 1 :] if "organ_gate" in names else ()
    # A step that looks at the probability or the image again brings back what the gate removed.
    assert all(step.needs() == Needs() for step in after)
