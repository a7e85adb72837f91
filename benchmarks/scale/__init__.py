"""Many workers and many scenes: real schedulers, simulated devices, and a model of more."""
