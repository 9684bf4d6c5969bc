"""How good is it: scores with signatures, the report and its plots."""
