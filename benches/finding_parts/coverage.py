NAME = "coverage"
