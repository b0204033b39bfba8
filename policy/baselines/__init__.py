"""The methods with which LiteEval is compared (Sec. 4.2.1), and a null control."""
