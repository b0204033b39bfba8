"""What LiteEval is compared with (Sec. 4.2.1), and two null controls; one file each."""
