"""What all parts of Foothill must agree on: types and pure rules, no I/O."""
