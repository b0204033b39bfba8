"""LiteEval: a coarse LSTM takes every frame, and a gate decides which frames a fine LSTM takes as well.

Source: Wu et al., "LiteEval: A Coarse-to-Fine Framework for Resource Efficient Video Recognition", Sec. 3.

Where its equations are:

    Eq. 1   coarse network             `policy.networks.gated.Recurrent.run`
    Eq. 2   log-odds of opening        `policy.liteeval.gate.ConditionalGate`
    Eq. 3   fine network               `policy.networks.gated.Recurrent.step`
    Eq. 4   gate between old and new   `policy.networks.gated.mixed`
    Eq. 5   coarse state copied        `policy.networks.gated.closed_state`
    Eq. 6   classes                    `policy.liteeval.model.LiteEval`, by its `classifier`
    Eq. 7   loss                       `policy.liteeval.loss.liteeval_loss`
    Eq. 8   Gumbel noise               `policy.liteeval.gate.gumbel_pairs`
    Eq. 9   gradient of a hard gate    `policy.networks.gated.decide`

`policy.networks.gated.Unrolled.run_gated` has Eq. 2-5, 8 and 9 in the order of one step, and
:mod:`policy.networks.gated_lstm` the same for LSTMs, with a gradient written by hand. Further:

- the cells of Table 6: :mod:`policy.networks.cells`; input scales: :mod:`policy.networks.standardize`;
- the whole network: :mod:`.model`; on raw video: :mod:`.session`; multiply-accumulates: :mod:`.cost`;
- training: :mod:`.method`;
- learned layers of the code that the authors released: :mod:`policy.networks.projection`; its weights:
  :mod:`.authors`.

Nothing is imported here, so that the configurations need no torch.
"""
