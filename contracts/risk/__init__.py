"""Risk: the statistics behind certificates and gates. Pure; numpy only where samples come in arrays."""
