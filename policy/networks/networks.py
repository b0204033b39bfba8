"""The recurrent networks that LiteEval can be built from, by the name of their cell (Sec. 3.1, Table 6)."""

from collections.abc import Mapping

from policy.config import Cell
from policy.networks.gru import GRU
from policy.networks.lstm import LSTM
from policy.networks.recurrent import Recurrent
from policy.networks.sru import SRU

NETWORKS: Mapping[Cell, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "sru": SRU}
