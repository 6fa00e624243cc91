"""What frozen features know, read out in closed form: no training, no seed."""
