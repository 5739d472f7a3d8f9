"""What tracks mean at a place: zones, lines, counts and rules. Pure; places are shares of the picture, 0..1."""
