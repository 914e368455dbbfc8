NAME = "speed"
