"""Multiply-accumulates (MACs) of the layers of policies. Only matrix products count, as in counters of backbones.

Both papers call 10⁹ of them a GFLOP.
"""


def lstm_step_macs(input_dim: int, hidden: int) -> int:
    """One step of an LSTM: four gates, each a product with the input and with the last hidden state."""
    return 4 * hidden * (input_dim + hidden)


def gru_step_macs(input_dim: int, hidden: int) -> int:
    """One step of a GRU: an LSTM's with three blocks instead of four."""
    return 3 * hidden * (input_dim + hidden)


def sru_step_macs(input_dim: int, hidden: int) -> int:
    """One step of an SRU: candidate, two gates and, if the sizes differ, a highway; none uses the state."""
    return (3 if input_dim == hidden else 4) * hidden * input_dim


def linear_macs(inputs: int, outputs: int) -> int:
    """One linear layer on one vector."""
    return inputs * outputs
