"""Parts of a network that do not learn for a while."""

from collections.abc import Iterable

from torch import nn


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """What learns in a network as it was built."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def freeze(network: nn.Module, learning: Iterable[nn.Parameter], frozen: Iterable[nn.Parameter]) -> None:
    """Make a network ready to train, with all of learning but frozen.

    Modules all of whose parameters are frozen rest as a whole: their running statistics and their dropout, too.
    """
    still = {id(parameter) for parameter in frozen}
    for parameter in learning:
        parameter.requires_grad_(id(parameter) not in still)
    network.train()
    for module in network.modules():
        own = {id(parameter) for parameter in module.parameters()}
        if own and own <= still:
            module.eval()
