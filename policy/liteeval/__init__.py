"""LiteEval: a coarse LSTM sees every frame, a gate decides which frames a fine LSTM sees as well.

Source: Wu et al., "LiteEval: A Coarse-to-Fine Framework for Resource Efficient Video Recognition", Sec. 3.

Equations and rooms: Eq. 1, 3, 4, 5 in :mod:`.recurrent`, for LSTMs in :mod:`.cells`; the cells of Table 6 in
:mod:`.lstm`, :mod:`.gru` and :mod:`.sru`; Eq. 2, 8, 9 in :mod:`.gate`; Eq. 6 and the whole network in
:mod:`.model`; Eq. 7 in :mod:`.loss`; multiply-accumulates in :mod:`.cost`; learned layers of the
released code in :mod:`.projection`, its weights in :mod:`.authors`; one frame at a time in :mod:`.stream`. Input
scales are in :mod:`policy.networks.standardize`.
"""
