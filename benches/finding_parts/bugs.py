NAME = "bugs"
